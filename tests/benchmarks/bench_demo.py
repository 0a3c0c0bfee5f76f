"""The demonstration after installation: six groups of 48 antennas from nothing to reports, and a second time.

Beside it, the telescope itself: six groups take it 1855 s. Run as ``python tests/benchmarks/bench_demo.py [--json]``.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TELESCOPE_S = 6 * 24 * 12.884902


def demo(place):
    begun = time.perf_counter()
    run = (sys.executable, "-m", "dsa110_contimg.cli", "demo", "--out", str(place))
    done = subprocess.run(run, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    return time.perf_counter() - begun


def measure():
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "demo"
        first, second = demo(place), demo(place)
        reports = len([page for page in (place / "reports").glob("*/*.html") if page.stem != "night"])
        nights = len(list((place / "reports").glob("*/night.html")))
    figures = {"first_s": first, "second_s": second, "times_faster_than_telescope": TELESCOPE_S / first}
    bars = {
        "first_s": {"value": first, "bar": 360.0, "holds": first < 360.0},
        "second_s": {"value": second, "bar": 20.0, "holds": second < 20.0},
        "reports": {"value": reports, "bar": 6, "holds": reports == 6},
        "night_reports": {"value": nights, "bar": 1, "holds": nights == 1},
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
