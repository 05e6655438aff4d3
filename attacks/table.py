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
    "packages": Campaign(
        "packages that somebody has changed: 396 tamperings by name, and random ones",
        cases=8_000,
        short=60,
        seconds=300,
        opened="attacks.packages:opened",
    ),
    "kills": Campaign(
        "SIGKILL at a random moment in every stage, run by itself or by DVC; then the same command again",
        cases=200,
        short=1,
        seconds=900,
        opened="attacks.kills:opened",
        alone=True,
    ),
    "full_disks": Campaign(
        "disks, inodes, sizes and numbers of files that run out in the middle of a stage; then room again",
        cases=100,
        short=2,
        seconds=600,
        opened="attacks.full_disks:opened",
        alone=True,
    ),
    "power_cuts": Campaign(
        "the chain's file system as a power cut leaves it at a random moment; then make repro",
        cases=40,
        short=1,
        seconds=1800,
        opened="attacks.power_cuts:opened",
        alone=True,
    ),
    "http": Campaign("the server over HTTP", cases=1000, short=40, seconds=60, opened="attacks.http_server:opened"),
    "grpc": Campaign("the server over gRPC", cases=1000, short=40, seconds=60, opened="attacks.grpc_server:opened"),
}
