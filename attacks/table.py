"""The campaigns that there are."""

from collections.abc import Mapping

from attacks.campaign import Campaign

CAMPAIGNS: Mapping[str, Campaign] = {}
