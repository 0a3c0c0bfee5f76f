"""A full-size group (96 antennas, 768 channels, 24 integrations) simulated, against the floor: writing as many bytes.

Run as ``python tests/benchmarks/bench_simulate.py [--json]``.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import reporting

COMMAND = (sys.executable, "-m", "dsa110_contimg.cli", "simulate", "night")
NIGHT = ("--start", "2026-01-26T04:51:13", "--groups", "1", "--antennas", "96", "--dec", "16.6", "--seed", "1")
BYTES = 16 * 145_348_600


def timed(function):
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def write_as_many_bytes(place):
    block = bytes(BYTES // 16)
    for number in range(16):
        with (place / f"floor{number}").open("wb") as stream:
            stream.write(block)
            os.fsync(stream.fileno())


def measure():
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        floor = timed(lambda: write_as_many_bytes(place))
        run = (*COMMAND, *NIGHT, "--out", str(place / "night"))
        seconds = timed(lambda: subprocess.run(run, check=True, capture_output=True))
        made = sum(file.stat().st_size for file in (place / "night").glob("*.hdf5"))
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
    return {"seconds": seconds, "peak_gb": peak, "bytes": made, "ratio_to_writing": seconds / floor}


if __name__ == "__main__":
    given = reporting.options(__doc__).parse_args()
    found = measure()
    limits = reporting.bars(found, below=(("seconds", 60.0), ("peak_gb", 4.0)), exactly=(("bytes", BYTES),))
    reporting.tell(found, limits, as_json=given.json)
