"""``dsa110 calibrate qa`` and ``apply``: exit codes, and what they print."""

import json

import numpy as np
import pytest
import typer
import xarray as xr
from typer.testing import CliRunner

from dsa110_contimg.commands import calibration_qa
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.io import ms
from dsa110_contimg.io.caltable import write_caltable
from dsa110_contimg.options import ConvertOptions
from dsa110_contimg.records import CalTable
from dsa110_contimg.stages.convert import convert
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.registry import Registry

app = typer.Typer()
app.command("apply")(calibration_qa.apply)
app.command("qa")(calibration_qa.qa)
DIMS = ("time", "antenna_name", "frequency", "polarization")


def gains(names, flagged=0, amplitude=0.07):
    shape = (1, len(names), 1, 2)
    flag = np.zeros(shape, bool)
    flag[:, :flagged] = True
    return xr.Dataset(
        {
            "GAIN": (DIMS, np.full(shape, amplitude, np.complex64)),
            "FLAG": (DIMS, flag),
            "SNR": (DIMS, np.full(shape, 200.0, np.float32)),
        },
        coords={"time": [61066.2], "antenna_name": names, "frequency": [1.405e9], "polarization": ["X", "Y"]},
        attrs={"kind": "G Jones", "refant": names[-1]},
    )


@pytest.fixture
def here(monkeypatch, tmp_path):
    for name in ("STATE", "REPORTS", "SCRATCH", "OUTPUT"):
        monkeypatch.setenv(f"PIPELINE_{name}_DIR", str(tmp_path / name.lower()))
    return tmp_path


def call(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_a_good_table_exits_with_0_and_a_bad_one_with_1(here):
    names = [str(k) for k in range(1, 13)]
    good = write_caltable(gains(names), here / "t.G")
    done = call("qa", good, "--json", "--no-report")
    assert done.exit_code == 0, done.output
    assert json.loads(done.output)["level"] == "good"
    other = write_caltable(gains(names, amplitude=0.14), here / "u.G")
    done = call("qa", other, "--previous", good, "--json", "--no-report")
    assert done.exit_code == 1
    levels = {one["name"]: one["level"] for one in json.loads(done.output)["judged"]}
    assert levels["G.amplitude_level_change"] == "bad" and levels["G.flagged_fraction"] == "good"


def test_a_group_is_judged_by_what_the_registry_has_against_the_one_before(here):
    names = [str(k) for k in range(1, 13)]
    registry = Registry(open_database(here / "state"))
    for day, amplitude in ((0, 0.07), (1, 0.072)):
        path = write_caltable(gains(names, amplitude=amplitude), here / f"day{day}.G")
        group, mjd = f"2026-01-2{6 + day}T04:51:13", 61066.2 + day
        registry.register(
            [CalTable(path, "G", f"set{day}", 2, group, "12", mjd, mjd - 0.1, mjd + 0.1, 0.0, 200.0, "3C138")]
        )
    done = call("qa", "2026-01-27T04:51:13", "--json", "--no-report")
    assert done.exit_code == 0, done.output
    values = {one["name"]: one["value"] for one in json.loads(done.output)["judged"]}
    assert values["G.amplitude_level_change"] == pytest.approx(np.log(0.072 / 0.07), rel=1e-3)


def test_a_table_that_is_not_there_is_named(here):
    done = call("qa", here / "a.G", here / "b.G", "--no-report")
    assert isinstance(done.exception, InputError) and "a.G" in str(done.exception)


def test_apply_writes_corrected_data(here, night16):
    record = convert(night16.groups[1], ConvertOptions(smoke_test=False), here / "ms")
    layout = ms.read_layout(record.path)
    path = write_caltable(gains(list(layout.names), amplitude=0.5), here / "t.G", record.path)
    done = call("apply", record.path, "--tables", path, "--calwt")
    assert done.exit_code == 0, done.output
    with ms.opened(record.path) as main:
        good = ~main.getcol("FLAG", 0, 200)
        # two antennas of amplitude 1/2
        np.testing.assert_allclose(
            main.getcol("CORRECTED_DATA", 0, 200)[good], 4 * main.getcol("DATA", 0, 200)[good], rtol=1e-6
        )
        sigma, weight = main.getcol("SIGMA", 0, 200), main.getcol("WEIGHT", 0, 200)
        np.testing.assert_allclose(weight[sigma > 0], sigma[sigma > 0] ** -2 / 16, rtol=1e-5)
