"""A full-size group (96 antennas, 768 channels, 24 integrations) becomes a Measurement Set, against two peers.

The peers run in the same minutes on the same files: pyuvdata (read, phase, write_ms), and the floor, reading the same
bytes with h5py and writing as many. Each runs in a process of its own, files warm in the cache, so that its memory is
its own. Then the two Measurement Sets are held against each other, `open_group` is timed, and the waterfall of one
antenna is asked how much it reads.

Run as ``python tests/benchmarks/bench_convert.py [--json] [--raw DIRECTORY]``; without a directory the group is
simulated first.
"""

import argparse
import importlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path

import numpy as np
import reporting

SIMULATE = (sys.executable, "-m", "dsa110_contimg.cli", "simulate", "night", "--groups", "1", "--antennas", "96")
NIGHT = ("--start", "2026-01-26T04:51:13", "--dec", "16.6", "--seed", "1")
SPEED_OF_LIGHT = 299_792_458.0
COLUMNS = ("visdata", "flags", "nsamples")
BLOCK = 4656


# ---- what is timed, each in a child -------------------------------------------------------------------------------


def ours(raw, place):
    from dsa110_contimg.io import groups
    from dsa110_contimg.options import ConvertOptions
    from dsa110_contimg.stages.convert import convert

    (group,) = groups.discover(raw).groups
    convert(group, ConvertOptions(writer="direct"), place)


def pyuvdata(raw, place):
    from astropy import units as u
    from astropy.coordinates import ICRS, EarthLocation, HADec
    from astropy.time import Time
    from pyuvdata import UVData

    warnings.simplefilter("ignore")
    parts = []
    for path in sorted(raw.glob("*_sb??.hdf5"), key=lambda p: p.name[-7:]):
        part = UVData()
        part.read(path, file_type="uvh5", run_check=False)
        part.uvw_array = part.uvw_array.astype(np.float64)
        parts.append(part)
    for part in parts:
        dec, place_on_earth = part.extra_keywords["phase_center_dec"], part.telescope.location
        turns = exact_w(part, dec)[:, None] * part.freq_array / SPEED_OF_LIGHT
        part.data_array = (part.data_array * np.exp(2j * np.pi * turns)[..., None]).astype(np.complex64)
    whole, *others = parts
    whole.fast_concat(others, axis="freq", inplace=True, run_check=False)
    whole.set_uvws_from_antenna_positions(update_vis=False)
    # a Julian date in one double is 40 microseconds coarse, 3 nanoradian of the meridian
    middle = Time((np.unique(whole.time_array) - 2400000.5).mean(), format="mjd", scale="utc")
    location = EarthLocation(place_on_earth.x, place_on_earth.y, place_on_earth.z)
    centre = HADec(0 * u.deg, dec * u.rad, obstime=middle, location=location).transform_to(ICRS())
    whole.phase(lon=centre.ra.rad, lat=centre.dec.rad, phase_frame="icrs", cat_name="meridian")
    whole.reorder_freqs(channel_order="freq", run_check=False)
    whole.write_ms(str(place / "pyuvdata.ms"), run_check=False)


def exact_w(whole, dec):
    """The files' w in double precision: their float32 is 0.1 mm coarse, 3e-3 rad, more than what is compared here."""
    where = whole.telescope.antenna_positions
    baseline = where[whole.ant_2_array] - where[whole.ant_1_array]
    longitude = whole.telescope.location.lon.rad
    towards = np.array([np.cos(dec) * np.cos(longitude), np.cos(dec) * np.sin(longitude), np.sin(dec)])
    w = baseline @ towards
    assert np.abs(w - whole.uvw_array[:, 2]).max() < 3e-4
    return w


def floor(raw, place):
    import h5py

    for number, path in enumerate(sorted(raw.glob("*_sb??.hdf5"))):
        with h5py.File(path) as file, (place / f"floor{number}").open("wb") as stream:
            for name in COLUMNS:
                stream.write(np.ascontiguousarray(file["Data"][name][:]).view(np.uint8))
            os.fsync(stream.fileno())


def opening(raw, _):
    import dsa110_contimg as dc
    from dsa110_contimg.science.coordinates import meridian_icrs

    importlib.import_module("dsa110_contimg.opening")
    told = {}
    # importing is not what is asked, nor what any process pays once that turns coordinates; it is told beside
    for name, work in (
        ("earth_orientation_seconds", lambda: meridian_icrs(61000.0, 0.3)),
        ("open_group_seconds", lambda: dc.open_group(raw)),
        ("open_group_again_seconds", lambda: dc.open_group(raw)),
    ):
        begun = time.perf_counter()
        work()
        told[name] = time.perf_counter() - begun
    return told


def waterfall(raw, _):
    import dsa110_contimg as dc

    vis = dc.open_group(raw)
    name = str(vis["baseline_antenna1_name"].values[0])
    before = bytes_read()
    begun = time.perf_counter()
    vis.dsa.plot.waterfall(antenna=name)
    seconds = time.perf_counter() - begun
    share = (bytes_read() - before) / sum(path.stat().st_size for path in raw.glob("*_sb??.hdf5"))
    return {"waterfall_seconds": seconds, "waterfall_share_read": share}


def plots(raw, _):
    import dsa110_contimg as dc

    vis = dc.open_group(raw)
    begun = time.perf_counter()
    vis.isel(time=[0]).dsa.plot.uv().savefig(os.devnull, format="png")
    seconds = {"imports_and_first_figure_seconds": time.perf_counter() - begun}
    for name, draw in (
        ("uv", vis.dsa.plot.uv),
        ("amplitude_uvdist", lambda: vis.dsa.plot.amplitude(x="uvdist")),
        ("amplitude_time", lambda: vis.dsa.plot.amplitude(x="time")),
        ("amplitude_frequency", lambda: vis.dsa.plot.amplitude(x="frequency")),
        ("phase_uvdist", lambda: vis.dsa.plot.phase(x="uvdist")),
    ):
        begun = time.perf_counter()
        draw().savefig(os.devnull, format="png")
        seconds[f"plot_{name}_seconds"] = time.perf_counter() - begun
    return seconds


def bytes_read():
    """Asked of the kernel by this process, from the cache or not."""
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


CHILDREN = {f.__name__: f for f in (ours, pyuvdata, floor, opening, waterfall, plots)}


def child(name, raw, place):
    begun = time.perf_counter()
    told = CHILDREN[name](raw, place) or {}
    seconds = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    sys.stdout.write(json.dumps({"seconds": seconds, "peak_gb": peak, **told}) + "\n")


def in_child(name, raw, place):
    place.mkdir(exist_ok=True)
    os.sync()  # what the one before left to be written is not this one's to wait for
    command = (sys.executable, __file__, "--child", name, "--raw", str(raw), "--place", str(place))
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


# ---- agreement ----------------------------------------------------------------------------------------------------


def integration(main, stations, number):
    """One integration, ordered by stations: pairs of them, and DATA and UVW.

    Where a file has pairs in both orders, as these have, pyuvdata writes all with ANTENNA1 > ANTENNA2 beside the DATA
    and UVW of the other order. A pair counts as the same in either.
    """
    pairs = np.stack([stations[main.getcol(c, number * BLOCK, BLOCK)] for c in ("ANTENNA1", "ANTENNA2")], axis=-1)
    pairs.sort(axis=1)
    order = np.lexsort(pairs.T[::-1])
    return pairs[order], *(main.getcol(name, number * BLOCK, BLOCK)[order] for name in ("DATA", "UVW"))


def compare(one, two):
    """Largest differences of the cross-correlations' DATA, relative to the largest, and of UVW (mm)."""
    from casacore.tables import table

    tables = [table(str(path), ack=False) for path in (one, two)]
    stations = [np.array([int(n) for n in table(f"{path}/ANTENNA", ack=False).getcol("NAME")]) for path in (one, two)]
    data = uvw = largest = 0.0
    for number in range(tables[0].nrows() // BLOCK):
        (pairs, a, u), (same, b, v) = (integration(*t, number) for t in zip(tables, stations, strict=True))
        assert (pairs == same).all()
        a, b = (values[pairs[:, 0] != pairs[:, 1]] for values in (a, b))
        data, largest = max(data, float(np.abs(a - b).max())), max(largest, float(np.abs(b).max()))
        uvw = max(uvw, float(np.abs(u - v).max()) * 1e3)
    return {"data_difference": data / largest, "uvw_difference_mm": uvw}


def dirty_difference(one, two, place):
    """Largest difference of WSClean's dirty images of both, relative to the peak."""
    from astropy.io import fits

    from dsa110_contimg.io import wsclean

    images = []
    for number, path in enumerate((one, two)):
        command = wsclean.dirty_command(path, place / f"dirty{number}", n_pixels=1024, cell_arcsec=6.0)
        images.append(fits.getdata(wsclean.run(command)[0]).squeeze())
    return {"dirty_image_difference": float(np.abs(images[0] - images[1]).max() / np.abs(images[1]).max())}


def measure(raw):
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        if raw is None:
            raw = place / "raw"
            subprocess.run((*SIMULATE, *NIGHT, "--out", str(raw)), check=True, capture_output=True)
        in_child("floor", raw, place / "warm")  # the files are in the cache from here on
        in_child("ours", raw, place / "compiled")  # and the kernels compiled
        figures = {}
        for name in ("floor", "pyuvdata", "ours"):
            told = in_child(name, raw, place / name)
            figures |= {f"{name}_{key}": value for key, value in told.items()}
        figures["faster_than_pyuvdata"] = figures["pyuvdata_seconds"] / figures["ours_seconds"]
        figures["ratio_to_floor"] = figures["ours_seconds"] / figures["floor_seconds"]
        for name in ("opening", "waterfall", "plots"):
            told = in_child(name, raw, place / name)
            figures |= {key: value for key, value in told.items() if key not in ("seconds", "peak_gb")}
        (made,) = (place / "ours").glob("*.ms")
        figures |= compare(made, place / "pyuvdata" / "pyuvdata.ms")
        figures |= dirty_difference(made, place / "pyuvdata" / "pyuvdata.ms", place)
    figures["slowest_plot_seconds"] = max(value for name, value in figures.items() if name.startswith("plot_"))
    return figures


BELOW = (
    ("ours_seconds", 10.0),
    ("ours_peak_gb", 3.0),
    ("data_difference", 1e-5),
    ("uvw_difference_mm", 1.0),
    ("dirty_image_difference", 1e-4),
    ("open_group_seconds", 0.5),
    ("slowest_plot_seconds", 3.0),
)

if __name__ == "__main__":
    parser = reporting.options(__doc__)
    parser.add_argument("--raw", type=Path, help="a directory that holds one full-size group; else one is simulated")
    parser.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    parser.add_argument("--place", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.raw, given.place)
    else:
        found = measure(given.raw)
        limits = reporting.bars(found, below=BELOW, at_least=(("faster_than_pyuvdata", 2.0),))
        reporting.tell(found, limits, as_json=given.json)
