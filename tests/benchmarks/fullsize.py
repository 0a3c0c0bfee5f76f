"""The night that full-size benchmarks share: a calibrator's group, and a target ten minutes later.

96 antennas, 768 channels, 24 integrations, XX and YY, at Dec 16.6: 3C138 transits in the first; the second has none.
"""

import json
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

SIMULATE = (sys.executable, "-m", "dsa110_contimg.cli", "simulate", "night", "--groups", "1", "--antennas", "96")
_LEFT_FREE = 2**30
STARTS = ("2026-01-26T04:51:13", "2026-01-26T05:01:31")


def simulate(place):
    """Write both groups below ``place``, each in its own directory, where they are not yet; the directories."""
    made = [place / name for name in ("calibrator", "target")]
    for folder, start in zip(made, STARTS, strict=True):
        if not list(folder.glob("*.hdf5")):
            command = (*SIMULATE, "--start", start, "--dec", "16.6", "--seed", "1", "--out", str(folder))
            subprocess.run(command, check=True, capture_output=True)
    return made


def run_of(raw, place):
    """The run of the one group in a directory, with all its places below ``place``."""
    from dsa110_contimg.io import groups
    from dsa110_contimg.pipeline import GroupRun
    from dsa110_contimg.settings import load_settings

    names = {"output_dir": "out", "scratch_dir": "scratch", "state_dir": "state", "reports_dir": "reports"}
    (group,) = groups.discover(raw).groups
    return GroupRun(group, load_settings(**{name: place / folder for name, folder in names.items()}))


@contextmanager
def full_memory(place):
    """Memory as it is at night: full of what was read and written before, which gives way to what comes.

    On a machine that was idle, or whose files have just been deleted, much of it is free. A guest's host may have taken
    back what is free (free page reporting); then each page costs a visit to the host when it is first written to,
    2 s a GB on the machine of our figures, where it costs 0.2 s otherwise. After four groups nothing is free any more.
    Holes of a sparse file fill it here, which take no room on the disk.
    """
    path = place / "holes"
    with path.open("wb") as stream:
        stream.truncate(psutil.virtual_memory().total)
    chunk = bytearray(2**24)
    with path.open("rb", buffering=0) as stream:
        while psutil.virtual_memory().free > _LEFT_FREE and stream.readinto(chunk):
            pass
    try:
        yield
    finally:
        path.unlink()


class Timer:
    """Seconds of what is called, by name."""

    def __init__(self):
        self.seconds = {}

    def __call__(self, name, function, *arguments, **options):
        begun = time.perf_counter()
        result = function(*arguments, **options)
        self.seconds[f"{name}_seconds"] = time.perf_counter() - begun
        return result


def in_child(script, name, **paths):
    """Run a part of a benchmark in a process of its own; what it prints last is its result."""
    given = [item for key, value in paths.items() for item in (f"--{key}", str(value))]
    done = subprocess.run((sys.executable, script, "--child", name, *given), capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


def add_child_options(parser, children):
    """The options with which a benchmark calls itself."""
    parser.add_argument("--raw", type=Path, help="where the simulated night is, or is to be kept")
    parser.add_argument("--child", choices=sorted(children))
    parser.add_argument("--place", type=Path)


def run_child(given, children):
    """Do what the parent asked for, if this is a child."""
    if given.child:
        sys.stdout.write(json.dumps(children[given.child](given.raw, given.place)) + "\n")
        sys.exit()
