"""Damaged files: each is read correctly or refused with an error of ours, and none brings the interpreter down.

Damage is seeded (`fuzzing.py`), so a case that fails can be run again alone:
``python tests/io/fuzzing.py GROUP SCRATCH number number+1 1``.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("fuzzing.py")
HANGS_AFTER_S = 300
"""A file that keeps HDF5 busy for ever is as bad as one that crashes it."""


@pytest.fixture(scope="module")
def group(simulated, tmp_path_factory):
    """One group of 4 antennas: 0.4 MB a file, with all that a large one has."""
    return simulated(tmp_path_factory.mktemp("small"), n_antennas=4, n_groups=1).directory


def run(group: Path, scratch: Path, first: int, last: int, convert_every: int) -> list[dict[str, str]]:
    """The outcome of each case; a case that its process did not survive is there as ``died``."""
    outcomes: list[dict[str, str]] = []
    while first < last:
        folder = scratch / f"from{first}"
        folder.mkdir()
        command = [sys.executable, "-W", "error", str(PROGRAM), str(group), str(folder), str(first), str(last)]
        try:
            done = subprocess.run(
                [*command, str(convert_every)], capture_output=True, text=True, timeout=HANGS_AFTER_S + (last - first)
            )
            output, how = done.stdout, f"exit status {done.returncode}: {done.stderr[-2000:]}"
        except subprocess.TimeoutExpired as error:
            output, how = (error.stdout or b"").decode(), "hangs"
        lines = [json.loads(line) for line in output.splitlines() if line.endswith("}")]
        finished = [line for line in lines if "case" in line]
        begun = [int(line["begin"]) for line in lines if "begin" in line]
        outcomes += finished
        assert begun, how  # not a case's fault
        if len(begun) > len(finished):
            outcomes.append({"case": str(begun[-1]), "died": how})
        first = begun[-1] + 1
    return outcomes


def failures(outcomes: list[dict[str, str]]) -> list[dict[str, str]]:
    bad = ("WRONG", "ESCAPED")
    return [o for o in outcomes if "died" in o or any(v.startswith(bad) for v in o.values())]


def test_sixty_damaged_files_are_read_correctly_or_refused(group, tmp_path):
    outcomes = run(group, tmp_path, 0, 60, convert_every=10)
    assert len(outcomes) == 60
    assert failures(outcomes) == []
    # the sample must not consist of files that nobody would take, nor of files that nothing happened to
    read = [o["read"].partition(":")[0] for o in outcomes]
    assert read.count("refused") > 10 and read.count("right") > 10
    assert sum("convert" in o for o in outcomes) == 6


@pytest.mark.campaign
def test_a_thousand_damaged_files_are_read_correctly_or_refused(group, tmp_path):
    outcomes = run(group, tmp_path, 1000, 2000, convert_every=10)
    assert len(outcomes) == 1000
    assert failures(outcomes) == []
