"""Other kinds of tables: K for targets, amplitudes and phases apart, gains in short intervals, one scale for all."""

import shutil
from dataclasses import replace

import numpy as np
import pytest

from dsa110_contimg.io import ms
from dsa110_contimg.io.caltable import open_caltable
from dsa110_contimg.options import CalibrateOptions
from dsa110_contimg.pipeline import GroupRun
from dsa110_contimg.reports.calibration import CalibrationReview
from dsa110_contimg.science.gains import interpolated
from dsa110_contimg.settings import load_settings
from dsa110_contimg.stages import apply, calibrate
from dsa110_contimg.state.registry import Registry
from dsa110_contimg.views.calibration import gain_solutions

SIMPLE = {"solver": "stefcal", "cross_check": False}


def kinds(tables):
    return [table.kind for table in sorted(tables, key=lambda table: (table.apply_order, table.kind))]


def product(tables, record):
    """Gains of several tables at all times and channels of a Measurement Set."""
    layout = ms.read_layout(record.path)
    views = [open_caltable(table.path) for table in tables]
    parts = [interpolated(view, layout.mjd, layout.frequencies, layout.names, ["X", "Y"]) for view in views]
    return np.prod(parts, axis=0)


@pytest.fixture(scope="module")
def night(night16, tmp_path_factory):
    """Runs of both groups, the calibrator's first, with options of calibration."""
    base = tmp_path_factory.mktemp("kinds")
    names = ("output_dir", "scratch_dir", "state_dir", "reports_dir")
    places = load_settings(**{name: base / name for name in names})

    def process(**options):
        chosen = places.options.model_copy(update={"calibrate": CalibrateOptions(cross_check=False, **options)})
        runs = [GroupRun(group, places, chosen) for group in reversed(night16.groups)]
        for run in runs:
            for step in ("convert", "flag", "calibrate", "apply"):
                run.step(step)
        return runs

    return process


@pytest.fixture
def place(tmp_path):
    for name in ("tables", "work"):
        (tmp_path / name).mkdir()
    return calibrate.Workplace(tmp_path / "tables", tmp_path / "work", tmp_path / "measures")


@pytest.fixture(scope="module")
def ready(night):
    """A calibrator's group, its model predicted."""
    return night(solver="stefcal")[0]


@pytest.fixture(scope="module")
def steady(simulated, tmp_path_factory):
    """A target and a calibrator's group of a night without drift of amplitudes, their models predicted."""
    base = tmp_path_factory.mktemp("steady")
    names = ("output_dir", "scratch_dir", "state_dir", "reports_dir")
    places = load_settings(**{name: base / name for name in names})
    chosen = places.options.model_copy(update={"calibrate": CalibrateOptions(**SIMPLE)})
    runs = [GroupRun(group, places, chosen) for group in simulated(base / "in", gain_amplitude_rms=0.0).groups]
    for run in reversed(runs):
        for step in ("convert", "flag", "calibrate"):
            run.step(step)
    return runs


@pytest.fixture
def copied(ready, tmp_path):
    record = ready.records["convert"]
    shutil.copytree(record.path, tmp_path / "copy.ms")
    return replace(record, path=tmp_path / "copy.ms")


def times_gains(record, gain):
    """Multiply DATA by g_i g_j of (time, antenna)."""
    layout = ms.read_layout(record.path)
    factor = (gain[:, layout.antenna1] * gain[:, layout.antenna2]).reshape(-1, 1, 1)
    with ms.opened(record.path, writable=True) as main:
        main.putcol("DATA", (main.getcol("DATA") * factor).astype(np.complex64))


def worth(run):
    """Residual over thermal noise, and the mean ratio of data to model, of a corrected group."""
    found = apply.compare(run.records["convert"].path).cross
    total = found.sums.sum(axis=(0, 1, 2))
    return np.sqrt(total[3] / (2 * total[4])) / found.noise_jy, total[0] / total[2]


def test_targets_take_the_delays_that_their_bandpass_was_solved_on(night):
    plain = night(channel_bin=8, solver="stefcal")[1]
    before = worth(plain)
    calibrator, target = night(channel_bin=8, do_k=True)
    assert kinds(calibrator.records["calibrate"].tables) == ["K", "B", "G", "GP"]
    assert kinds(target.records["calibrate"].tables) == ["K", "B", "G", "GP"]
    assert {t.set_name for t in target.records["calibrate"].tables[:3]} == {f"{calibrator.group_id}_J0521+166"}
    after = worth(target)
    # the bandpass has the same noise in both: nothing else may come on top
    assert after[0] == pytest.approx(before[0], rel=1e-3)
    assert after[0] == pytest.approx(1.0, rel=0.01)
    assert after[1] == pytest.approx(before[1], rel=1e-3)
    # solved anew without delays, the bandpass has them, and the delays are no longer applied
    again = night(channel_bin=8, solver="stefcal", gain_min_snr=2.9)[1]
    assert kinds(again.records["calibrate"].tables) == ["B", "G", "GP"]
    assert worth(again) == pytest.approx(before, rel=1e-3)
    assert not list(again.products_dir.glob("caltables/*.K"))
    states = {row["status"] for row in Registry(again.database).list_tables("K")}
    assert states == {"retired"}


def test_between_calibrators_amplitudes_come_on_top_of_delays_and_parts(night):
    whole = night(channel_bin=8, solver="stefcal", gain_minutes=0.1)[1]
    expected = worth(whole)
    assert kinds(whole.records["calibrate"].tables) == ["B", "GA", "GP"]
    calibrator, target = night(channel_bin=8, do_k=True, split_amplitude_phase=True, gain_minutes=0.1)
    assert kinds(target.records["calibrate"].tables) == ["K", "BA", "BP", "GA", "GP"]
    used = {table.kind: table for table in target.records["calibrate"].tables}
    assert used["GA"].calibrator == used["GP"].calibrator == ""
    assert used["BA"].group_id == calibrator.group_id
    assert worth(target) == pytest.approx(expected, rel=1e-3)
    # a second try does not take its own interpolated amplitudes for a calibrator's
    valid, around = target.registry.for_target(target.group.mjd_mid)
    assert kinds(valid) == ["K", "BA", "BP"]
    assert [[table.kind for table in pair] for pair in around] == [["BA", "GA"]]


def test_parts_do_what_the_complex_tables_do_in_the_whole_pipeline(night, tmp_path):
    whole = night(solver="stefcal")
    expected = [worth(run) for run in whole]
    stale = {table.path for table in whole[0].records["calibrate"].solved if table.calibrator}
    parts = night(solver="stefcal", split_amplitude_phase=True)
    assert not any(path.exists() for path in stale)
    for run, old in zip(parts, expected, strict=True):
        assert kinds(run.records["calibrate"].tables) == ["BA", "BP", "GA", "GP"]
        assert [table.group_id for table in run.records["calibrate"].tables if table.kind == "GP"] == [run.group_id]
        assert worth(run) == pytest.approx(old, rel=1e-5)
    made = parts[0].records["calibrate"].solved
    assert kinds(made) == ["BA", "BP", "GA", "GP", "GP"]
    # the calibrator's own page: the tables that are applied, each judged once
    review = CalibrationReview.open(group_id=parts[0].group_id, state_dir=str(parts[0].settings.state_dir))
    assert list(review.tables) == ["BA", "BP", "GA", "GP"]
    assert review.tables["GP"].sizes["time"] == 24
    assert review.judgement.level in ("good", "suspect")
    gain_solutions(list(review.tables.values())).savefig(tmp_path / "page.png")


def test_the_product_of_the_parts_is_that_of_the_complex_tables(ready, place):
    record, calibrator = ready.records["convert"], ready.calibrator
    whole = calibrate.solve_calibrator(record, calibrator, CalibrateOptions(**SIMPLE), place)
    expected = product(whole, record)
    parts = calibrate.solve_calibrator(
        record, calibrator, CalibrateOptions(**SIMPLE, split_amplitude_phase=True), place
    )
    assert [table.kind for table in parts] == ["BA", "BP", "GA", "GP"]
    # what the solution before has left is gone
    assert sorted(path.name for path in place.out_dir.iterdir()) == sorted(table.path.name for table in parts)
    found = product(parts, record)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(expected))
    known = np.isfinite(expected)
    assert known.mean() > 0.8
    # four values are rounded, each to half of 2^-23, where two were
    assert (np.abs(found - expected)[known] <= 4 * 2.0**-23 * np.abs(expected)[known]).all()
    for table, like in zip(parts, (whole[0], whole[0], whole[1], whole[1]), strict=True):
        assert (table.flagged_fraction, table.median_snr) == (like.flagged_fraction, like.median_snr)
        assert (table.valid_from, table.valid_to, table.set_name) == (like.valid_from, like.valid_to, like.set_name)


@pytest.mark.parametrize("solver", ["stefcal", "casa"])
def test_short_intervals_recover_a_fast_drift_of_amplitudes(solver, ready, copied, place):
    options = CalibrateOptions(**SIMPLE)
    tables = calibrate.solve_calibrator(copied, ready.calibrator, options, place)
    layout = ms.read_layout(copied.path)
    antenna = np.arange(len(layout.names))
    # 10 %, three turns in the group: a solution for all of it cannot follow
    drift = 1 + 0.1 * np.sin(6 * np.pi * np.arange(24)[:, None] / 24 + antenna)
    times_gains(copied, drift)
    options = options.model_copy(update={"short_interval_s": layout.integration_s, "solver": solver})
    own = calibrate.solve_field(copied, tables, options, place)
    assert [table.kind for table in own] == ["GP", "2G"]
    short = own[1]
    assert (short.valid_from, short.valid_to) == pytest.approx((copied.mjd_start, copied.mjd_end))
    assert short.calibrator == ""
    view = open_caltable(short.path)
    amplitude = np.abs(view.GAIN.where(~view.FLAG)).transpose("time", "antenna_name", "frequency", "polarization")
    off = (amplitude.to_numpy()[:, :, 0] / drift[..., None] - 1) * view.SNR.transpose(*amplitude.dims).to_numpy()[
        :, :, 0
    ]
    known = off[np.isfinite(off)]
    assert known.size > 0.9 * 24 * 2 * (~view.FLAG).any(("time", "frequency", "polarization")).sum()
    # errors of the tables below come on top, and those of the antennas are not independent
    assert np.sqrt(np.mean(known**2)) == pytest.approx(1.0, abs=0.35)


def test_short_intervals_are_applied_to_the_calibrators_group_alone(night):
    calibrator, target = night(solver="stefcal", short_interval_s=26.0)
    assert kinds(calibrator.records["calibrate"].tables) == ["B", "G", "GP", "2G"]
    assert open_caltable(calibrator.records["calibrate"].tables[-1].path).sizes["time"] == 12
    assert kinds(target.records["calibrate"].tables) == ["B", "G", "GP"]
    assert worth(calibrator)[0] == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize("true", [1.0, 1.03])
def test_a_scale_that_all_antennas_share_is_found_within_its_error(true, steady, tmp_path):
    target, calibrator = steady
    place = calibrate.Workplace(tmp_path / "tables", tmp_path, tmp_path)
    place.out_dir.mkdir()
    record = replace(target.records["convert"], path=tmp_path / "copy.ms")
    shutil.copytree(target.records["convert"].path, record.path)
    times_gains(record, np.full((24, len(ms.read_layout(record.path).names)), np.sqrt(true)))
    tables = calibrator.records["calibrate"].tables[:2]
    own = calibrate.solve_field(record, tables, CalibrateOptions(**SIMPLE, do_flux=True), place)
    assert [table.kind for table in own] == ["GP", "FLUX"]
    view = open_caltable(own[1].path)
    assert dict(view.sizes) == {"time": 1, "antenna_name": 16, "frequency": 1, "polarization": 2}
    gain, snr = view.GAIN.to_numpy()[0, :, 0], view.SNR.to_numpy()[0, 0, 0]
    assert (gain == gain[0]).all()
    assert (gain.imag == 0).all()
    assert own[1].median_snr == pytest.approx(np.median(snr), rel=1e-5)
    # of g^2: its own noise, and that of the calibrator's gains, which averages over antennas
    error = 2 * np.hypot(1 / snr, 1 / tables[1].median_snr / np.sqrt(16))
    off = (gain[0].real ** 2 / true - 1) / error
    assert (np.abs(off) < 3).all()
    # and it is no excuse: a tenth of the scale that was injected
    assert (error < 0.003).all()


def test_with_the_scale_a_group_has_the_mean_flux_of_the_catalogue(night):
    calibrator, target = night(solver="stefcal", do_flux=True)
    for run in (calibrator, target):
        used = {table.kind: table for table in run.records["calibrate"].tables}
        assert list(used) == ["B", "G", "GP", "FLUX"]
        assert used["FLUX"].group_id == run.group_id
        # but for weights, by construction
        assert abs(worth(run)[1] - 1) < 0.2 / used["FLUX"].median_snr
    assert target.records["apply"].flux_scale_error > 2 / used["FLUX"].median_snr / np.sqrt(2)
