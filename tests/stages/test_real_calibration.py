"""Real VLA data that none of us made: our door to CASA changes nothing, our solver finds what CASA and AIPS found."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from dsa110_contimg.io import casa
from dsa110_contimg.io.measures import measures_directory
from dsa110_contimg.io.ms import opened
from dsa110_contimg.science.condense import Normal, accumulate
from dsa110_contimg.science.stefcal import solve_normal
from dsa110_contimg.settings import load_settings

CALLS = (
    ("gaincal", {"calmode": "p", "solint": "int", "refant": "5", "minsnr": 3.0}, ()),
    ("bandpass", {"solint": "inf", "combine": "scan,field", "refant": "5", "minsnr": 3.0}, (0,)),
    ("gaincal", {"calmode": "ap", "solint": "inf", "combine": "scan,field", "refant": "5"}, (0, 1)),
)

PLAIN = """
import json, sys
import casatasks
for task, arguments in json.loads(sys.argv[1]):
    getattr(casatasks, task)(**arguments)
"""


@pytest.fixture(scope="module")
def vla():
    path = load_settings().validation_data / "vla"
    if not path.is_dir():
        pytest.skip(f"the validation data are not at {path}; DSA110_VALIDATION_DATA names the folder")
    return path


@pytest.fixture(scope="module")
def measures(tmp_path_factory):
    return tmp_path_factory.mktemp("measures")


def imported(uvfits, folder, measures):
    path = folder / f"{uvfits.stem}.ms"
    casa.import_uvfits(uvfits, path, workdir=folder, measures_cache=measures)
    return path


def test_tasks_through_our_door_make_the_tables_that_plain_casa_makes(vla, measures, tmp_path):
    path = imported(vla / "3C286_VLA_1400MHz.uvfits", tmp_path, measures)
    calls, tasks = [], []
    for number, (name, arguments, before) in enumerate(CALLS):
        for who, into in (("plain", calls), ("ours", tasks)):
            tables = [tmp_path / f"{who}{k}" for k in (*before, number)]
            full = arguments | {"vis": path, "caltable": tables[-1], "gaintable": tables[:-1]}
            into.append((name, full))
    casa.run_tasks([casa.CasaTask(*task, "caltable") for task in tasks], workdir=tmp_path, measures_cache=measures)
    data = measures_directory(measures)
    config = tmp_path / "config.py"
    config.write_text(
        f"datapath=[{str(data)!r}]\nmeasurespath={str(data)!r}\nmeasures_auto_update=False\ndata_auto_update=False\n"
        f"nogui=True\nlogfile={str(tmp_path / 'plain.log')!r}\n"
    )
    plain = json.dumps(calls, default=str)
    environment = {"CASASITECONFIG": str(config), "HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
    subprocess.run([sys.executable, "-c", PLAIN, plain], check=True, env=environment, cwd=tmp_path, capture_output=True)
    for number in range(len(CALLS)):
        for column in ("CPARAM", "FLAG", "SNR", "PARAMERR", "TIME", "ANTENNA1", "ANTENNA2"):
            with opened(tmp_path / f"ours{number}") as ours, opened(tmp_path / f"plain{number}") as theirs:
                assert ours.nrows() > 0
                np.testing.assert_array_equal(ours.getcol(column), theirs.getcol(column), err_msg=f"{number} {column}")


def solved(rows, data, model, flags, weights, refant):
    """Gains of one interval, each row a baseline of its own: (antenna, polarization) and their errors."""
    antennas = np.stack(rows, axis=-1).astype(np.int64)
    n_antennas = int(antennas.max()) + 1
    cubes = tuple(np.ascontiguousarray(cube[None]) for cube in (data, model, flags))
    normal = Normal.empty(1, len(antennas), 1, data.shape[-1])
    ones = np.ones((1, n_antennas, 1, data.shape[-1]), np.complex64)
    weights = np.ascontiguousarray(weights[None, :, None], np.float32)
    accumulate(cubes, weights, ones, antennas, (0, 0), 0, normal.sums)
    solutions = solve_normal(normal, antennas, n_antennas, refants=(refant,))
    return solutions.gain[0, :, 0], solutions.error[0, :, 0]


def test_our_solver_finds_casas_gains_on_3c286(vla, measures, tmp_path):
    path = imported(vla / "3C286_VLA_1400MHz.uvfits", tmp_path, measures)
    caltable = tmp_path / "gains"
    arguments = {"vis": path, "caltable": caltable, "solint": "inf", "combine": "scan,field", "refant": "5"}
    casa.run_tasks([casa.CasaTask("gaincal", arguments, "caltable")], workdir=tmp_path, measures_cache=measures)
    with opened(caltable) as main:
        window = np.asarray(main.getcol("SPECTRAL_WINDOW_ID")) == 0
        theirs, bad = (np.asarray(main.getcol(name))[window][:, 0] for name in ("CPARAM", "FLAG"))
        numbers = np.asarray(main.getcol("ANTENNA1"))[window]
        refant = int(np.asarray(main.getcol("ANTENNA2"))[window][0])
    with opened(path) as main:
        first = main.query("DATA_DESC_ID == 0 and ANTENNA1 != ANTENNA2")
        columns = [np.asarray(first.getcol(name)) for name in ("ANTENNA1", "ANTENNA2", "DATA", "FLAG", "WEIGHT")]
    one, two, data, flags, weights = columns
    ends = [0, data.shape[-1] - 1]
    data, flags, weights = data[..., ends], flags[..., ends], weights[..., ends]
    mine, error = solved((one, two), data, np.ones_like(data), flags, weights, refant)
    theirs = theirs * np.exp(-1j * np.angle(theirs[numbers == refant]))
    good = ~bad
    # the table has antennas without data, too
    there = numbers < len(mine)
    theirs, numbers, good = theirs[there], numbers[there], good[there]
    difference = np.abs(mine[numbers] - theirs)[good] / error[numbers][good]
    assert good.sum() > 40
    assert np.sqrt(np.mean(difference**2)) < 0.3


def test_our_solver_finds_the_gains_that_aips_applied(vla, measures, tmp_path):
    """Raw against calibrated visibilities of one observation; AIPS multiplied by conj(G1) G2."""
    raw, done = (
        imported(vla / f"C346R424_VLA_1400MHz_{which}.uvfits", tmp_path, measures) for which in ("raw", "caldata")
    )
    gains = pd.read_csv(vla / "C346R424_AIPS_CL2_gains.csv")
    columns = ("ANTENNA1", "ANTENNA2", "TIME", "DATA_DESC_ID", "DATA", "FLAG", "WEIGHT")
    with opened(raw) as before, opened(done) as after:
        one, two, seconds, window, data, flags, weights = (np.asarray(before.getcol(name)) for name in columns)
        model = np.asarray(after.getcol("DATA"))
    with opened(raw / "ANTENNA") as sub:
        names = [int("".join(filter(str.isdigit, name))) for name in sub.getcol("NAME")]
    flags = flags | (model == 0)
    days = seconds / 86400.0 % 1.0
    compared = 0
    for (time, part), table in gains.groupby(["time_days", "if"]):
        here = (np.abs(days - time) < 30 / 86400) & (window == part - 1) & (one != two)
        if not here.any():
            continue
        when = days[here] == days[here][np.abs(days[here] - time).argmin()]
        rows = np.flatnonzero(here)[when]
        ends = [0, data.shape[-1] - 1]
        cut = [cube[rows][..., ends] for cube in (data, model, flags)]
        found, _ = solved((one[rows], two[rows]), *cut, weights[rows][:, ends], int(one[rows][0]))
        for column, hand in enumerate("RL"):
            wanted = table[table["pol"] == hand].set_index("antenna")
            index = [k for k in range(len(found)) if np.isfinite(found[k, column]) and names[k] in wanted.index]
            told = 1.0 / np.conj(
                wanted.loc[[names[k] for k in index], "real"].to_numpy()
                + 1j * wanted.loc[[names[k] for k in index], "imag"].to_numpy()
            )
            mine = found[index, column]
            turn = np.vdot(mine, told)
            np.testing.assert_allclose(mine * turn / np.abs(turn), told, rtol=0.01)
            compared += len(index)
    assert compared > 50
