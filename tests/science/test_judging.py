"""Each fault moves the figure it should, and leaves the others alone."""

import dataclasses

import numpy as np
import pytest
import xarray as xr

from dsa110_contimg.exceptions import SettingsError
from dsa110_contimg.io.bounds import calibration_bounds
from dsa110_contimg.science import judging
from dsa110_contimg.science.applying import Comparison
from dsa110_contimg.science.judging import closures, coherence, judge_calibration, stability, table_figures

N, TIMES, SNR = 24, 24, 200.0


def table(kind="GP", rng=None, n_times=TIMES, n_channels=1, drift_deg=3.0, snr=SNR):
    """Phases that wander from solution to solution, each antenna's its own, all relative to antenna 4."""
    rng = rng or np.random.default_rng(1)
    steps = np.radians(drift_deg) * rng.normal(size=(n_times, N, 1, 2))
    phase = 2 * np.pi * rng.random((1, N, n_channels, 2)) + np.cumsum(steps, axis=0)
    phase = phase - phase[:, 4:5]
    size = np.ones(phase.shape) if kind == "GP" else 1 + 0.05 * rng.normal(size=phase.shape)
    dims = ("time", "antenna_name", "frequency", "polarization")
    return xr.Dataset(
        {
            "GAIN": (dims, size * np.exp(1j * phase)),
            "FLAG": (dims, np.zeros(phase.shape, bool)),
            "SNR": (dims, np.full(phase.shape, snr)),
        },
        coords={
            "time": 61066.2 + np.arange(n_times) * 1.5e-4,
            "antenna_name": [str(k + 1) for k in range(N)],
            "frequency": 1.4e9 + 2.4e5 * np.arange(n_channels),
            "polarization": ["X", "Y"],
        },
        attrs={"kind": kind, "refant": "5"},
    )


def comparison(rng=None, error=None, noise=1.0, n_channels=768):
    """Sums of data that are a 5 Jy source with thermal noise; ``error`` (time, baseline, polarization) multiplies."""
    rng = rng or np.random.default_rng(2)
    one, two = np.triu_indices(N)
    shape = (TIMES, one.size, 2)
    error = np.ones(shape) if error is None else np.broadcast_to(error, shape)
    model, power = 5.0, 25.0 * n_channels
    sums = np.zeros((*shape, 6))
    scatter = noise * np.sqrt(power) * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
    value = power * error + scatter
    sums[..., 0], sums[..., 1], sums[..., 2] = value.real, value.imag, power
    sums[..., 3] = 2 * noise**2 * n_channels + np.abs(error - 1) ** 2 * model**2 * n_channels
    sums[..., 4] = n_channels
    return Comparison(sums, one, two, tuple(str(k + 1) for k in range(N)), ("XX", "YY"), 1.0, np.arange(TIMES) * 1e-4)


def figures(verdict):
    return {(figure.table, figure.name): figure for figure in verdict.figures}


@pytest.fixture
def good():
    return {"B": table("B", n_times=1, n_channels=64, snr=40.0), "G": table("G", n_times=1), "GP": table()}


def test_a_good_calibration_is_good_in_every_figure(good):
    between = {"gap_hours": 3.0, "flux_scale_error": 0.008, "flagged_fraction": 0.0}
    verdict = judge_calibration(
        good, calibration_bounds(), previous=good, interpolated=between, comparison=comparison()
    )
    assert verdict.reasons == ()
    assert verdict.level == "good" and not verdict.failed() and not verdict.failed("suspect")
    asked = {figure.name for figure in verdict.figures}
    assert asked == set(calibration_bounds().calibration), "every bound is used"


def test_antennas_that_are_not_there_are_not_counted(good):
    for kind in good:
        good[kind]["FLAG"][:, :6] = True
    verdict = judge_calibration(good, calibration_bounds())
    assert figures(verdict)["B", "flagged_fraction"].value == 0.0


def test_receptors_that_exist_and_have_no_solution_are_counted(good):
    good["GP"]["FLAG"][:, 6:12, :, 0] = True
    verdict = judge_calibration(good, calibration_bounds())
    assert figures(verdict)["GP", "flagged_fraction"].value == pytest.approx(6 / (2 * N))
    assert figures(verdict)["GP", "outlying_receptors"].value == pytest.approx(6 / (2 * N))
    assert figures(verdict)["B", "flagged_fraction"].value == 0.0


def test_deaf_antennas_are_outliers(good):
    good["G"]["GAIN"][:, 7:13] *= 0.3
    verdict = judge_calibration(good, calibration_bounds())
    moved = {(f.table, f.name) for f in verdict.figures if f.level != "good"}
    assert moved == {("G", "outlying_receptors")}
    assert figures(verdict)["G", "outlying_receptors"].level == "bad"


def test_a_reference_antenna_with_bad_phases_moves_all_the_others():
    jumpy = table()
    turn = np.exp(1j * np.radians(60) * np.random.default_rng(3).normal(size=(TIMES, 1, 1, 1)))
    others = np.arange(N) != 4
    jumpy["GAIN"][:, others] = jumpy["GAIN"].to_numpy()[:, others] * turn
    found = table_figures(jumpy, "GP")
    assert found["reference_jump_ratio"] > 10 > 3 > table_figures(table(), "GP")["reference_jump_ratio"]
    assert found["phase_scatter_deg"] == pytest.approx(table_figures(table(), "GP")["phase_scatter_deg"], rel=0.3)


def test_a_reference_that_was_changed_half_way_shows_in_its_phase():
    changed = table()
    changed["GAIN"][12:] = changed["GAIN"].to_numpy()[12:] * np.exp(0.4j)
    assert table_figures(changed, "GP")["reference_phase_deg"] == pytest.approx(np.degrees(0.4))
    assert judge_calibration({"GP": changed}, calibration_bounds()).level == "bad"


def test_phases_that_wander_are_measured():
    # the reference's own steps are shared, and taken off with the median: one antenna's remain
    found = table_figures(table(drift_deg=20.0), "GP")["phase_scatter_deg"]
    assert found == pytest.approx(20.0 / np.sqrt(2), rel=0.1)


def test_decorrelation_is_measured_whatever_the_noise():
    rng = np.random.default_rng(5)
    phase = 0.4 * rng.normal(size=(TIMES, N * (N + 1) // 2, 1))
    found = dataclasses.replace(comparison(error=np.exp(1j * phase), noise=30.0), noise_jy=30.0)
    # each product of two times loses the mean of exp(i phase) squared
    assert coherence(found) == pytest.approx(np.exp(-(0.4**2) / 2), rel=0.01)
    assert coherence(dataclasses.replace(comparison(noise=30.0), noise_jy=30.0)) == pytest.approx(1.0, abs=0.01)
    assert judge_calibration({}, calibration_bounds(), comparison=found).level != "good"


def test_noise_above_thermal_is_measured():
    found = figures(judge_calibration({}, calibration_bounds(), comparison=comparison(noise=1.3)))
    assert found["data", "residual_over_thermal"].value == pytest.approx(1.3, rel=0.01)
    assert found["data", "residual_over_thermal"].level == "suspect"


def test_gains_of_antennas_leave_closures_alone_and_baselines_do_not():
    rng = np.random.default_rng(6)
    gain = rng.uniform(0.8, 1.25, N) * np.exp(1j * rng.normal(size=N))
    one, two = np.triu_indices(N)
    by_antenna = comparison(error=(gain[one] * gain[two].conj())[None, :, None])
    # rms of a normal distribution is its sigma; the antennas' 20 000 sets are far from independent
    assert closures(by_antenna) == pytest.approx((1.0, 1.0), abs=0.15)
    by_baseline = comparison(
        error=np.exp(0.05 * (rng.normal(size=one.size) + 1j * rng.normal(size=one.size)))[None, :, None]
    )
    noise = 1.0 / (5.0 * np.sqrt(768 * TIMES))
    assert closures(by_baseline) == pytest.approx((0.05 / noise, 0.05 / noise), rel=0.3)


def test_a_bad_antenna_shows_in_the_amplitudes_left_over():
    rng = np.random.default_rng(8)
    gain = 1 + 0.08 * rng.normal(size=N)
    one, two = np.triu_indices(N)
    found = figures(
        judge_calibration({}, calibration_bounds(), comparison=comparison(error=(gain[one] * gain[two])[:, None]))
    )
    assert found["data", "antenna_scatter"].value == pytest.approx(0.08, rel=0.5)
    assert found["data", "antenna_scatter"].level == "suspect"
    assert found["data", "coherence"].level == "good"


def test_stability_parts_what_all_antennas_did_from_what_each_did(rng):
    now, then = table("G", n_times=1), table("G", n_times=1)
    then["GAIN"] = now["GAIN"] * np.exp(0.08 * rng.normal(size=now["GAIN"].shape)) * 1.3
    found = stability(now, then.isel(antenna_name=slice(2, None)))
    assert found["amplitude_level_change"] == pytest.approx(np.log(1.3), abs=0.05)
    assert found["amplitude_change"] == pytest.approx(0.08, rel=0.4)


@pytest.mark.parametrize(
    ("name", "value", "level", "told"),
    [
        ("gap_hours", 9.0, "suspect", "GA time to the nearest solution 9 h (good: at most 6.5 h)"),
        ("gap_hours", 13.0, "bad", "13 h"),
        ("flux_scale_error", 0.057, "suspect", "GA predicted error of a flux 5.7 % (good: at most 3 %)"),
        ("flux_scale_error", 0.11, "bad", "11 %"),
        ("flux_scale_error", np.nan, "unknown", "not known"),
        ("flagged_fraction", 0.6, "bad", "60 %"),
    ],
)
def test_gains_between_calibrators_are_judged_by_their_gap_and_error(name, value, level, told):
    between = {"gap_hours": 3.0, "flux_scale_error": 0.008, "flagged_fraction": 0.0} | {name: value}
    verdict = judge_calibration({}, calibration_bounds(), interpolated=between)
    assert (verdict.level, verdict.failed()) == (level, level == "bad")
    assert told in str(verdict)


def test_what_cannot_be_told_is_unknown_and_not_good():
    empty = table()
    empty["FLAG"][...] = True
    verdict = judge_calibration({"GP": empty}, calibration_bounds())
    assert figures(verdict)["GP", "flagged_fraction"].value == 1.0
    assert figures(verdict)["GP", "snr_phase"].level == "unknown"
    assert verdict.failed() and "flagged" in str(verdict)
    assert judge_calibration({}, calibration_bounds()).level == "unknown"
    alone = dataclasses.replace(comparison(), sums=comparison().sums[:1])
    assert np.isnan(coherence(alone))


def test_bounds_are_dated_and_each_has_its_reason(tmp_path):
    bounds = calibration_bounds()
    assert bounds.date.year >= 2026
    assert all(len(bound.why) >= 20 for bound in bounds.calibration.values())
    own = tmp_path / "bounds.yaml"
    own.write_text(
        "date: 2026-01-01\ncalibration:\n  snr_gain: {label: S, unit: '', scale: 1, good: [5, 1], suspect: [9, null],"
        " why: because this is a test of bounds}\n"
    )
    with pytest.raises(SettingsError, match="bounds of calibration"):
        calibration_bounds(own)
    with pytest.raises(SettingsError, match="bounds of calibration"):
        calibration_bounds(tmp_path / "none")


def test_figures_are_told_with_their_units(good):
    verdict = judge_calibration(good, calibration_bounds())
    assert figures(verdict)["B", "flagged_fraction"].text == "0 %"
    assert judging.LEVELS == ("good", "unknown", "suspect", "bad")
