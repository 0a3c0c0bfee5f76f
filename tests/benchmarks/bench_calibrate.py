"""A full-size calibrator group (96 antennas, 768 channels, 24 integrations) flagged and solved, against plain CASA.

The peer runs in the same minutes on the same Measurement Set and flags: phases before the bandpass, then what the bar
counts, casatasks' bandpass, gaincal and applycal at full resolution. Ours is flagging, the solution with the default
options and applying. Each runs in a process of its own, files warm in the cache and kernels compiled. Then the products
of bandpass and gains are held against each other, in units of their errors.

Run as ``python tests/benchmarks/bench_calibrate.py [--json] [--raw DIRECTORY]``; without a directory the group, in
which 3C138 transits, is simulated first.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

SIMULATE = (sys.executable, "-m", "dsa110_contimg.cli", "simulate", "night", "--groups", "1", "--antennas", "96")
NIGHT = ("--start", "2026-01-26T04:51:13", "--dec", "16.6", "--seed", "1")
RECORD = "record.json"


def measures(place):
    return place / "state" / "measures"


def run_of(raw, place):
    from dsa110_contimg.io import groups
    from dsa110_contimg.pipeline import GroupRun
    from dsa110_contimg.settings import load_settings

    names = {"output_dir": "out", "scratch_dir": "scratch", "state_dir": "state", "reports_dir": "reports"}
    (group,) = groups.discover(raw).groups
    return GroupRun(group, load_settings(**{name: place / folder for name, folder in names.items()}))


def record_of(place):
    from dsa110_contimg.records import MeasurementSet

    return MeasurementSet.from_json((place / RECORD).read_text())


def workplace(place):
    from dsa110_contimg.io import files
    from dsa110_contimg.stages.calibrate import Workplace

    return Workplace(files.make_directory(place / "tables"), files.make_directory(place / "casa"), measures(place))


class Timer:
    """Seconds of what is called, by name."""

    def __init__(self):
        self.seconds = {}

    def __call__(self, name, function, *arguments, **options):
        begun = time.perf_counter()
        result = function(*arguments, **options)
        self.seconds[f"{name}_seconds"] = time.perf_counter() - begun
        return result


# ---- what is timed, each in a child -------------------------------------------------------------------------------


def prepare(raw, place):
    from dsa110_contimg.options import CalibrateOptions, FlagOptions
    from dsa110_contimg.stages import flag, model

    run = run_of(raw, place)
    record = run.step("convert").record
    (place / RECORD).write_text(record.to_json())
    flag.flag(record, FlagOptions())
    model.predict_field(record, run.field_catalog, CalibrateOptions())
    return {}


def ours(raw, place):
    from dsa110_contimg.options import CalibrateOptions, FlagOptions
    from dsa110_contimg.stages import apply, calibrate, flag

    timed, record, options = Timer(), record_of(place), CalibrateOptions()
    here = workplace(place)
    transit = run_of(raw, place).transits[0]
    position = tuple(np.radians([transit.ra_deg, transit.dec_deg]))
    timed("flag", flag.flag, record, FlagOptions())
    tables = timed("solve", calibrate.solve_calibrator, record, transit.name, options, here, position)
    phases = timed("phases", calibrate.solve_phases, record, tables, options, here)
    timed("apply", apply.apply, record, (*tables, phases), here.work_dir, here.measures)
    return timed.seconds | {"tables": [str(table.path) for table in tables]}


def plain(_, place):
    from dsa110_contimg.io import casa
    from dsa110_contimg.stages.calibrate import choose_refant

    timed, record = Timer(), record_of(place)
    tables = {name: place / "tables" / f"plain.{name}" for name in ("pre", "B", "G")}
    common = {"vis": record.path, "refant": choose_refant(record), "parang": False}
    whole = common | {"solint": "inf", "combine": "scan,field"}
    first = common | {"caltable": tables["pre"], "calmode": "p", "solint": "int", "gaintype": "G"}
    second = whole | {"caltable": tables["B"], "bandtype": "B", "gaintable": [tables["pre"]], "minsnr": 5.0}
    third = whole | {"caltable": tables["G"], "gaintype": "G", "calmode": "ap", "gaintable": [tables["B"]]}
    last = {"vis": record.path, "gaintable": [tables["B"], tables["G"]], "calwt": False, "flagbackup": False}
    calls = (("pre", "gaincal", first), ("bandpass", "bandpass", second), ("gaincal", "gaincal", third))
    for name, task, arguments in calls:
        todo = [casa.CasaTask(task, arguments, "caltable")]
        timed(name, casa.run_tasks, todo, workdir=place / "casa", measures_cache=measures(place))
    todo = [casa.CasaTask("applycal", last)]
    timed("applycal", casa.run_tasks, todo, workdir=place / "casa", measures_cache=measures(place))
    return timed.seconds | {"tables": [str(tables["B"]), str(tables["G"])]}


CHILDREN = {f.__name__: f for f in (prepare, ours, plain)}


def in_child(name, raw, place):
    command = (sys.executable, __file__, "--child", name, "--raw", str(raw), "--place", str(place))
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{name} failed: {done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


# ---- agreement ----------------------------------------------------------------------------------------------------


def product(paths):
    """Bandpass times gains, with the errors of the bandpass."""
    from dsa110_contimg.io.caltable import open_caltable

    bandpass, gains = (open_caltable(Path(path)) for path in paths)
    flags = bandpass.FLAG | gains.FLAG.to_numpy()
    return bandpass.assign(GAIN=bandpass.GAIN * gains.GAIN.to_numpy(), FLAG=flags)


def measure(raw):
    from dsa110_contimg.science.stefcal import agreement

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if raw is None:
            raw = place / "raw"
            subprocess.run((*SIMULATE, *NIGHT, "--out", str(raw)), check=True, capture_output=True)
        in_child("prepare", raw, place)
        in_child("ours", raw, place)  # files in the cache, kernels compiled
        mine, theirs = in_child("ours", raw, place), in_child("plain", raw, place)
        told = agreement(product(theirs.pop("tables")), product(mine.pop("tables")))
    figures = {f"ours_{name}": value for name, value in mine.items()}
    figures |= {f"plain_{name}": value for name, value in theirs.items()}
    figures["ours_seconds"] = sum(mine[f"{name}_seconds"] for name in ("flag", "solve", "apply"))
    figures["plain_seconds"] = sum(theirs[f"{name}_seconds"] for name in ("bandpass", "gaincal", "applycal"))
    figures["faster_than_casatasks"] = figures["plain_seconds"] / figures["ours_seconds"]
    figures["solving_faster"] = (figures["plain_seconds"] - theirs["applycal_seconds"]) / mine["solve_seconds"]
    figures["gains_chi_square"], figures["gains_difference"] = told.rms_sigma**2, told.rms_relative
    figures["flag_apply_seconds"] = mine["flag_seconds"] + mine["apply_seconds"]
    bars = {
        "faster_than_casatasks": (figures["faster_than_casatasks"], 3.0, figures["faster_than_casatasks"] >= 3.0),
        "gains_chi_square": (figures["gains_chi_square"], 1.0, figures["gains_chi_square"] < 1.0),
        "flag_apply_seconds": (figures["flag_apply_seconds"], 8.0, figures["flag_apply_seconds"] < 8.0),
    }
    keys = ("value", "bar", "holds")
    return {"figures": figures, "bars": {name: dict(zip(keys, bar, strict=True)) for name, bar in bars.items()}}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--raw", type=Path)
    parser.add_argument("--child", choices=sorted(CHILDREN))
    parser.add_argument("--place", type=Path)
    given = parser.parse_args()
    if given.child:
        sys.stdout.write(json.dumps(CHILDREN[given.child](given.raw, given.place)) + "\n")
        sys.exit()
    result = measure(given.raw)
    lines = [f"{name}: {value:.4g}" for name, value in result["figures"].items()]
    lines += [
        f"{name}: {bar['value']:.4g}, bar {bar['bar']:.4g}, holds: {bar['holds']}"
        for name, bar in result["bars"].items()
    ]
    sys.stdout.write((json.dumps(result) if given.json else "\n".join(lines)) + "\n")
    sys.exit(not all(bar["holds"] for bar in result["bars"].values()))
