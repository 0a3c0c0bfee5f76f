"""A full-size group (96 antennas, 768 channels, 24 integrations) simulated, against the floor: writing as many bytes.

Run as ``python tests/benchmarks/bench_simulate.py [--json]``.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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
    figures = {"seconds": seconds, "peak_gb": peak, "bytes": made, "ratio_to_writing": seconds / floor}
    bars = {
        "seconds": {"value": seconds, "bar": 60.0, "holds": seconds < 60.0},
        "peak_gb": {"value": peak, "bar": 4.0, "holds": peak < 4.0},
        "bytes": {"value": made, "bar": BYTES, "holds": made == BYTES},
    }
    return {"figures": figures, "bars": bars}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    as_json = parser.parse_args().json
    result = measure()
    lines = [f"{name}: {value:.4g}" for name, value in result["figures"].items()]
    lines += [
        f"{name}: {bar['value']:.4g}, bar {bar['bar']:.4g}, holds: {bar['holds']}"
        for name, bar in result["bars"].items()
    ]
    sys.stdout.write((json.dumps(result) if as_json else "\n".join(lines)) + "\n")
    sys.exit(not all(bar["holds"] for bar in result["bars"].values()))
