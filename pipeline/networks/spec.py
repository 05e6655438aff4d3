"""How a network is made, as it stands in a JSON file."""

from typing import Any, NamedTuple

from models.backbones.sources import backbone_fingerprint

WEIGHTS = "model.safetensors"
DESCRIPTION = "network.json"
"""The files of a saved network: its weights, and how it is made."""


class NetworkSpec(NamedTuple):
    """From what a network is built."""

    kind: str
    """A name of ``pipeline.networks.saved.NETWORK_KINDS``."""
    arguments: dict[str, Any]
    """Those of the kind's builder."""

    def own_code(self) -> str | None:
        """Return a digest of the user's files that make the network; None where there are none.

        Raises:
            ValueError: a file is not there, or cannot be read.
        """
        return backbone_fingerprint(self.arguments["backbone"]) if "backbone" in self.arguments else None
