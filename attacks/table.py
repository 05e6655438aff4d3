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
}
