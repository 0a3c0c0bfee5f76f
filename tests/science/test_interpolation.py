"""Amplitudes between calibrators: right where they can be, and wrong by as much as is said."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg import schema
from dsa110_contimg.exceptions import CalibrationError
from dsa110_contimg.science import interpolation, photometry
from dsa110_contimg.simulate import gains as simulated

DAY = 61000.0
N_ANTENNAS = 24
CALIBRATORS_H = np.array([0, 1.1, 2.9, 3.3, 6.0, 7.2, 9.0, 14.5, 16.0, 17.2, 20.1, 23.0])
BETWEEN_H = np.array([0.5, 2.0, 5.0, 8.0, 11.7, 15.2, 18.5, 21.4])


def caltable(mjd: float, gain: np.ndarray, snr: float | np.ndarray = 300.0, frequency: np.ndarray | None = None):
    """A CalTable of one time from (antenna, frequency, polarization)."""
    dims = ("time", "antenna_name", "frequency", "polarization")
    frequency = np.array([1.405e9]) if frequency is None else frequency
    cube = np.asarray(gain, np.complex64)[None]
    variables = {
        "GAIN": (dims, cube),
        "FLAG": (dims, ~np.isfinite(cube.real)),
        "SNR": (dims, np.broadcast_to(np.asarray(snr, np.float32), cube.shape).copy()),
    }
    coords = {"time": [mjd], "antenna_name": [str(n + 1) for n in range(cube.shape[1])]}
    coords |= {"frequency": frequency, "polarization": ["X", "Y"]}
    return schema.check(xr.Dataset(variables, coords, {"kind": "G", "refant": "1"}), schema.CALTABLE)


def gains_of(hours: np.ndarray, log_amplitude: np.ndarray) -> list[xr.Dataset]:
    return [caltable(DAY + t / 24, np.exp(a)[:, None]) for t, a in zip(hours, log_amplitude, strict=True)]


def walk(rng: np.random.Generator, hours: np.ndarray) -> np.ndarray:
    """1 % in an hour, each antenna and polarisation on its own."""
    steps = rng.normal(0, 0.01, (hours.size, N_ANTENNAS, 2)) * np.sqrt(np.diff(hours, prepend=hours[0]))[:, None, None]
    return np.cumsum(steps, axis=0)


def wander(rng: np.random.Generator, hours: np.ndarray) -> np.ndarray:
    """The simulator's own drift: periods of 1 to 8 h, 1 % rms."""
    return np.log(np.abs(simulated.drift(int(rng.integers(1_000_000)), DAY + hours / 24, 0.01, 15.0)))[:, :N_ANTENNAS]


def straight(rng: np.random.Generator, hours: np.ndarray) -> np.ndarray:
    return rng.normal(0, 0.002, (N_ANTENNAS, 2)) * hours[:, None, None]


def judged(process: Callable, solved: np.ndarray, asked: np.ndarray, seeds: int) -> tuple[float, float, float]:
    """Reduced chi-square of gains and of flux scales, and the median error of a flux, over simulated stretches.

    Where the drift is assumed, 20 sources of 2 % noise say how far off the scale is, as in `stages.measure`.
    """
    gains, scales, fluxes = [], [], []
    for seed in range(seeds):
        rng = np.random.default_rng([110, seed])
        hours = np.sort(np.concatenate([solved, asked]))
        truth = dict(zip(hours, process(rng, hours), strict=True))
        noisy = np.stack([truth[t] + rng.normal(0, 1 / 300, (N_ANTENNAS, 2)) for t in solved])
        levels = interpolation.amplitude_levels(gains_of(solved, noisy))
        drift = interpolation.fit_drift(levels)
        for t in asked:
            made = interpolation.interpolate(levels, DAY + t / 24, 0.5 / 24, drift)
            error = np.log(np.abs(made["GAIN"].to_numpy()[0, :, 0])) - truth[t]
            gains.append(np.mean((error / made["ERROR"].to_numpy()[0, :, 0]) ** 2))
            fluxes.append(abs(2 * error.mean()))
            scale = made.attrs["flux_scale_error"]
            if interpolation.shared_quality(made) & interpolation.DRIFT_ASSUMED:
                scale = photometry.scale_error(scale, 1 - 2 * error.mean() + rng.normal(0, 0.02, 20))
            scales.append((2 * error.mean() / scale) ** 2)
    return float(np.mean(gains)), float(np.mean(scales)), float(np.median(fluxes))


def test_a_random_walk_is_known_as_one_and_errors_hold() -> None:
    chi_gain, chi_flux, flux = judged(walk, CALIBRATORS_H, BETWEEN_H, 8)
    assert 0.8 <= chi_gain <= 1.3
    # 64 flux scales, those of one day correlated: three standard deviations of their mean
    assert 0.4 <= chi_flux <= 1.6
    assert flux < 0.01


def test_the_simulators_drift_has_honest_errors_over_a_day_and_over_8_hours_between_two() -> None:
    chi_day, _, flux_day = judged(wander, CALIBRATORS_H, BETWEEN_H, 4)
    chi_stretch, chi_flux, flux_stretch = judged(wander, np.array([0.0, 8.0]), np.linspace(0.5, 7.5, 8), 16)
    assert 0.8 <= chi_day <= 1.3
    assert 0.8 <= chi_stretch <= 1.3
    # what the sources say holds the error of the sources: never too small, and at most by their noise too large
    assert 0.2 <= chi_flux <= 1.3
    assert flux_day < 0.01 and flux_stretch < 0.01


def test_two_solutions_alone_are_never_trusted_too_much() -> None:
    """They cannot tell a walk from gains that went to and fro: the error quoted is that of the worse."""
    for process in (walk, straight):
        chi_gain, _, _ = judged(process, np.array([0.0, 8.0]), np.linspace(0.5, 7.5, 8), 4)
        assert chi_gain <= 1.3


def test_the_law_is_told_from_the_solutions() -> None:
    rng = np.random.default_rng(3)
    for process, words in ((walk, "random walk"), (straight, "linear drift"), (wander, "about a mean")):
        exact = interpolation.amplitude_levels(gains_of(CALIBRATORS_H, process(rng, CALIBRATORS_H)))
        law = interpolation.fit_drift(exact).laws[0]
        assert words in law.in_words(23 / 24)
    hour = (
        interpolation.fit_drift(interpolation.amplitude_levels(gains_of(CALIBRATORS_H, walk(rng, CALIBRATORS_H))))
        .laws[0]
        .structure(1 / 24)
    )
    # 48 series of 11 increments: 6 % of a variance, 3 sigma
    assert hour == pytest.approx(0.01**2, rel=0.25)


def test_the_structure_function_of_a_random_walk_grows_with_the_lag(rng) -> None:
    levels = interpolation.amplitude_levels(gains_of(CALIBRATORS_H, walk(rng, CALIBRATORS_H)))
    measured = interpolation.structure_function(levels)
    near, far = measured.where(measured["lag"] < 2 / 24, drop=True), measured.where(measured["lag"] > 0.5, drop=True)
    assert measured.sizes["lag"] == 66
    per_hour = [float((part["D"] / (24 * part["lag"])).mean()) for part in (near, far)]
    assert per_hour == pytest.approx([1e-4, 1e-4], rel=0.35)


@settings(max_examples=25, deadline=None)
@given(hour=st.floats(0.0, 6.0), scale=st.floats(0.2, 5.0))
def test_between_two_solutions_the_logarithm_is_linear_and_scales_along(hour: float, scale: float) -> None:
    first, last = np.full((3, 2), np.log(scale)), np.full((3, 2), np.log(1.1 * scale))
    levels = interpolation.amplitude_levels(gains_of(np.array([0.0, 6.0]), np.stack([first, last])))
    made = interpolation.interpolate(levels, DAY + hour / 24, 1.0)
    expected = scale * 1.1 ** (hour / 6)
    assert np.abs(made["GAIN"].to_numpy()) == pytest.approx(expected, rel=1e-5)
    assert (made["GAIN"].to_numpy().imag == 0).all()
    assert (made["SNR"] * made["ERROR"]).to_numpy() == pytest.approx(1.0, rel=1e-5)


def test_errors_grow_with_the_gap_and_quality_says_when_it_is_too_wide(rng) -> None:
    levels = interpolation.amplitude_levels(gains_of(CALIBRATORS_H, walk(rng, CALIBRATORS_H)))
    drift = interpolation.fit_drift(levels)
    hours = (9.0, 9.4, 10.0, 11.75)
    made = [interpolation.interpolate(levels, DAY + t / 24, 0.5 / 24, drift) for t in hours]
    errors = [float(one["ERROR"].mean()) for one in made]
    assert errors == sorted(errors)
    assert errors[0] == pytest.approx(1 / 300, rel=0.01), "at a solution, its own"
    assert [int(one["QUALITY"].max()) for one in made] == [0, 0, *[interpolation.BEYOND_VALIDITY] * 2]
    scales = [one.attrs["flux_scale_error"] for one in made]
    # amplitudes enter a flux twice and are averaged over 24 antennas and two polarisations
    assert scales[0] == pytest.approx(2 / 300 / np.sqrt(48), rel=0.01)
    assert made[3].attrs["gap_days"] == pytest.approx(2.75 / 24)
    beyond = interpolation.interpolate(levels, DAY + 30 / 24, 0.5 / 24, drift)
    assert int(beyond["QUALITY"].min()) == interpolation.EXTRAPOLATED | interpolation.BEYOND_VALIDITY
    assert float(beyond["ERROR"].mean()) > errors[3]


def test_an_antenna_dead_on_one_side_is_taken_from_the_other_and_without_any_is_flagged(rng) -> None:
    truth = walk(rng, CALIBRATORS_H)
    truth[1, 3], truth[:, 5, 1] = np.nan, np.nan
    levels = interpolation.amplitude_levels(gains_of(CALIBRATORS_H, truth))
    made = interpolation.interpolate(levels, DAY + 0.5 / 24, 1.0)
    gain, flag, quality = (made[name].to_numpy()[0, :, 0] for name in ("GAIN", "FLAG", "QUALITY"))
    assert flag.sum() == 1 and flag[5, 1]
    assert np.isnan(gain[5, 1]) and made["SNR"].to_numpy()[0, 5, 0, 1] == 0
    # the next solution of antenna 3 is 2.9 h away instead of 1.1
    assert np.log(np.abs(gain[3])) == pytest.approx(truth[0, 3] + (0.5 / 2.9) * (truth[2, 3] - truth[0, 3]), abs=1e-5)
    assert (quality[~flag] == 0).all()
    last = interpolation.interpolate(levels.isel(time=slice(0, 2)), DAY + 0.5 / 24, 1.0)
    assert (last["QUALITY"].to_numpy()[0, 3] & interpolation.EXTRAPOLATED).all()


def test_few_solutions_are_told(rng) -> None:
    for number in (1, 2, 3):
        levels = interpolation.amplitude_levels(gains_of(CALIBRATORS_H, walk(rng, CALIBRATORS_H))[:number])
        made = interpolation.interpolate(levels, DAY + 0.5 / 24, 1.0)
        assert bool((made["QUALITY"] & interpolation.DRIFT_ASSUMED).any()) == (number < 3)
        assert made.attrs["n_solutions"] == number
    alone = interpolation.amplitude_levels(gains_of(CALIBRATORS_H, walk(rng, CALIBRATORS_H))[:1])
    # nothing is known: the assumed rms, of both ends
    made = interpolation.interpolate(alone, DAY + 2 / 24, 1.0)
    assert float(made["ERROR"].mean()) == pytest.approx(2 * interpolation.ASSUMED_RMS, rel=0.05)


def test_what_all_antennas_share_enters_the_flux_scale_whole(rng) -> None:
    shared = walk(rng, CALIBRATORS_H)[:, :1, :1] * np.ones((1, N_ANTENNAS, 2))
    own = walk(rng, CALIBRATORS_H) / 10
    alone, both = (
        interpolation.interpolate(
            interpolation.amplitude_levels(gains_of(CALIBRATORS_H, truth)), DAY + 11.7 / 24, 1.0
        ).attrs["flux_scale_error"]
        for truth in (own, own + shared)
    )
    assert alone < 0.002
    # 2 x 1 % sqrt(5.5 h / 4), learnt from 11 increments of one series
    assert 0.5 * 0.0234 < both < 3 * 0.0234


def test_one_restless_antenna_does_not_spoil_the_others(rng) -> None:
    quiet = walk(rng, CALIBRATORS_H)
    wild = quiet.copy()
    wild[:, 7] *= 30
    errors = []
    for truth in (quiet, wild):
        levels = interpolation.amplitude_levels(gains_of(CALIBRATORS_H, truth))
        errors.append(interpolation.interpolate(levels, DAY + 11.7 / 24, 1.0)["ERROR"].to_numpy()[0, :, 0])
    others = np.arange(N_ANTENNAS) != 7
    assert np.median(errors[1][others] / errors[0][others]) == pytest.approx(1.0, rel=0.3)
    assert (errors[1][7] > 5 * np.median(errors[1])).all()


def test_gains_on_different_bandpasses_are_referred_to_the_one_applied(rng) -> None:
    """Each calibrator has its own bandpass, which holds the amplitude, and a gain near 1 on top of it."""
    frequency = np.linspace(1.31e9, 1.5e9, 32)
    shape = rng.uniform(0.8, 1.2, (N_ANTENNAS, 32, 2)) * np.exp(1j * rng.uniform(0, 6, (N_ANTENNAS, 32, 2)))
    size = rng.uniform(0.9, 1.1, (2, N_ANTENNAS, 1, 2))
    bandpasses = [caltable(DAY + t, size[n] * shape, 50.0, frequency) for n, t in enumerate((0.0, 0.25))]
    # the second lacks a subband: only channels that both have may be compared
    lost = bandpasses[1].copy(deep=True)
    lost["FLAG"][:, :, 4:9] = True
    lost["GAIN"][:, :, 4:9] = 77.0
    ones = [caltable(DAY + t, np.ones((N_ANTENNAS, 1, 2)), 500.0) for t in (0.0, 0.25)]
    levels = interpolation.amplitude_levels(ones, [bandpasses[0], lost], bandpasses[0])
    for mjd, expected in ((DAY, np.ones_like(size[0])), (DAY + 0.25, size[1] / size[0])):
        made = interpolation.interpolate(levels, mjd, 1.0)
        assert made["GAIN"].to_numpy()[0].real == pytest.approx(expected, rel=1e-5)
        total = made["GAIN"].to_numpy()[0] * bandpasses[0]["GAIN"].to_numpy()[0]
        truth = size[round((mjd - DAY) * 4)] * shape
        assert np.abs(total / truth) == pytest.approx(1.0, rel=1e-4)


def test_what_cannot_be_interpolated_is_refused(rng) -> None:
    good = gains_of(CALIBRATORS_H[:2], walk(rng, CALIBRATORS_H[:2]))
    with pytest.raises(CalibrationError, match="0 gains"):
        interpolation.amplitude_levels([])
    with pytest.raises(CalibrationError, match="2 gains, 1 bandpasses"):
        interpolation.amplitude_levels(good, good[:1], good[0])
    with pytest.raises(CalibrationError, match="one time"):
        interpolation.amplitude_levels([good[0], good[0]])
    wide = caltable(DAY, np.ones((N_ANTENNAS, 4, 2)), 9.0, np.linspace(1.3e9, 1.5e9, 4))
    with pytest.raises(CalibrationError, match="different channels"):
        interpolation.amplitude_levels(good[:1], [wide], good[0])
    dead = interpolation.amplitude_levels([caltable(DAY, np.full((N_ANTENNAS, 1, 2), np.nan))])
    with pytest.raises(CalibrationError, match="No antenna"):
        interpolation.interpolate(dead, DAY, 1.0)


@pytest.mark.parametrize("rms", [0.01, 0.03])
def test_a_drift_that_all_antennas_share_between_two_solutions_is_in_the_errors_of_fluxes(rms) -> None:
    """The two may be alike by chance while the array has gone to and fro: the field's own sources tell."""

    def together(rng: np.random.Generator, hours: np.ndarray) -> np.ndarray:
        common = np.log(np.abs(simulated.drift(int(rng.integers(1_000_000)), DAY + hours / 24, rms, 0.0)))[:, :1, :1]
        return common + wander(rng, hours) / 10

    _, chi_flux, flux = judged(together, np.array([0.0, 8.0]), np.linspace(0.5, 7.5, 8), 16)
    assert 0.7 <= chi_flux <= 1.3
    assert flux > rms, "else there was nothing to tell"


def test_bits_of_a_few_receptors_do_not_count_for_a_flux(rng) -> None:
    truth = walk(rng, CALIBRATORS_H)
    for n_lost, told in ((1, 0), (6, interpolation.EXTRAPOLATED)):
        lost = truth.copy()
        lost[1:, :n_lost] = np.nan
        levels = interpolation.amplitude_levels(gains_of(CALIBRATORS_H, lost))
        made = interpolation.interpolate(levels, DAY + 0.5 / 24, 1.0)
        assert (made["QUALITY"].to_numpy()[0, :n_lost] & interpolation.EXTRAPOLATED).all()
        assert interpolation.shared_quality(made) == told
