"""The night that full-size benchmarks share: a calibrator's group, and a target ten minutes later.

96 antennas, 768 channels, 24 integrations, XX and YY, at Dec 16.6: 3C138 transits in the first; the second has none.
"""

import json
import subprocess
import sys
import time
from pathlib import Path

SIMULATE = (sys.executable, "-m", "dsa110_contimg.cli", "simulate", "night", "--groups", "1", "--antennas", "96")
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
