"""The campaigns that there are."""

from collections.abc import Mapping

from attacks.campaign import Campaign

CAMPAIGNS: Mapping[str, Campaign] = {
    "packages": Campaign(
        "packages that somebody has changed", cases=8000, short=40, seconds=180, opened="attacks.packages:opened"
    ),
}
