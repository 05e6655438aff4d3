"""The campaigns that there are."""

from collections.abc import Mapping

from attacks.campaign import Campaign

CAMPAIGNS: Mapping[str, Campaign] = {
    "images": Campaign(
        "image files of 34 kinds, damaged in 32 ways, read as the pipeline and a package's user read them",
        cases=43_000,
        short=400,
        seconds=120,
        opened="attacks.images:opened",
    ),
    "archives": Campaign(
        "archives of images: bytes damaged, members that lie, lead elsewhere, or are no files, bombs",
        cases=4_000,
        short=300,
        seconds=120,
        opened="attacks.archives:opened",
    ),
    "weights": Campaign(
        "files of weights: headers, pickles, containers and tensors changed, calls put into them",
        cases=8_000,
        short=150,
        seconds=120,
        opened="attacks.weights:opened",
    ),
}
