"""Damaged image files of all kinds are read or refused in one line; benchmarks/image_attack.py has the long form."""

import subprocess
import sys

from tests.helpers import ROOT

CASES = 400


def test_no_damage_ends_in_anything_but_an_image_or_one_line() -> None:
    command = [sys.executable, "benchmarks/image_attack.py", "--count", str(CASES), "--seed", "7"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    rows = [line.rsplit(maxsplit=3) for line in done.stdout.splitlines()[1:-1]]
    assert len(rows) == 31
    counts = {row[0]: [int(number) for number in row[1:]] for row in rows}
    assert sum(map(sum, counts.values())) == CASES
    assert counts["nothing"][0] > counts["cut off"][0]
    assert sum(read for read, _, _ in counts.values()) > CASES // 10
