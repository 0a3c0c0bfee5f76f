"""The demonstration after installation: six groups of 48 antennas from nothing to reports, and a second time.

Beside it, the telescope itself: six groups take it 1855 s. Run as ``python tests/benchmarks/bench_demo.py [--json]``.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import reporting

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
    return {
        "first_s": first,
        "second_s": second,
        "reports": reports,
        "night_reports": nights,
        "times_faster_than_telescope": TELESCOPE_S / first,
    }


if __name__ == "__main__":
    given = reporting.options(__doc__).parse_args()
    found = measure()
    limits = reporting.bars(
        found, below=(("first_s", 360.0), ("second_s", 20.0)), exactly=(("reports", 6), ("night_reports", 1))
    )
    reporting.tell(found, limits, as_json=given.json)
