"""How a network is made, as it stands in a JSON file."""

from typing import Any, NamedTuple


class NetworkSpec(NamedTuple):
    """From what a network is built."""

    kind: str
    """A name of ``pipeline.networks.saved.NETWORK_KINDS``."""
    arguments: dict[str, Any]
    """Those of the kind's builder."""
