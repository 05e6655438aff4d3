"""What has been tried: a file of lines for each campaign and seed, so that an interrupted one goes on where it was."""

import hashlib
import json
import subprocess
from pathlib import Path

from attacks.campaign import Outcome

ROOT = Path(__file__).parent.parent


def code_version() -> str:
    """Return what names the code under attack: a digest of the commit and of what differs from it."""
    said = [
        subprocess.run(["git", *words], cwd=ROOT, capture_output=True, check=True).stdout
        for words in (["rev-parse", "HEAD"], ["diff", "HEAD"])
    ]
    return hashlib.sha256(b"\0".join(said)).hexdigest()[:16]


class Ledger:
    """The outcomes of one campaign with one seed and one state of the code; other states begin anew."""

    def __init__(self, path: Path, version: str) -> None:
        self.path = path
        self.outcomes: dict[int, Outcome] = {}
        lines = path.read_text().splitlines() if path.exists() else []
        if lines and lines[0] == version:
            for line in lines[1:]:
                try:
                    case, *outcome = json.loads(line)
                except ValueError:  # the line that was being written as the last run ended
                    continue
                self.outcomes[case] = Outcome(*outcome)
        path.parent.mkdir(parents=True, exist_ok=True)
        written = [json.dumps([case, *outcome]) for case, outcome in self.outcomes.items()]
        path.write_text("".join(f"{line}\n" for line in (version, *written)))

    def add(self, case: int, outcome: Outcome) -> None:
        """Keep ``outcome`` of ``case``."""
        self.outcomes[case] = outcome
        with self.path.open("a") as file:
            file.write(json.dumps([case, *outcome]) + "\n")
