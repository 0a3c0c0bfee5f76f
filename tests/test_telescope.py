"""The constants of the telescope against what is known of the array and of a real file."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.time import Time
from astropy.utils.iers import IERS_A
from astropy_iers_data import IERS_A_FILE

from dsa110_contimg import telescope


def _active_baselines(arms: tuple[str, ...] = ("EW", "NS", "OUT")) -> np.ndarray:
    stations = telescope.stations()
    chosen = stations.active & np.isin(stations.arm, arms)
    position = stations.itrf[chosen]
    first, second = np.triu_indices(len(position), k=1)
    return np.linalg.norm(position[first] - position[second], axis=-1)


def test_96_of_117_stations_are_active_in_two_arms_and_outriggers() -> None:
    stations = telescope.stations()
    assert stations.number.tolist() == list(range(1, 118))
    arms = np.array(stations.arm)[stations.active]
    assert {arm: int((arms == arm).sum()) for arm in ("EW", "NS", "OUT")} == {"EW": 47, "NS": 35, "OUT": 14}
    inactive = [10, 21, 22, 23, *range(52, 68), 117]
    assert stations.number[~stations.active].tolist() == inactive


def test_baselines_run_from_6_m_to_2601_m() -> None:
    lengths = _active_baselines()
    assert len(lengths) == 4560
    # the figures are quoted to their last digit, rounded or cut
    assert lengths.min() == pytest.approx(5.8, abs=0.1)
    assert lengths.max() == pytest.approx(2601, abs=1)
    assert np.median(lengths) == pytest.approx(308, abs=1)
    core = _active_baselines(("EW", "NS"))
    assert np.median(core) == pytest.approx(242, abs=1)
    assert core.max() == pytest.approx(484, abs=1)


def test_sidereal_times_are_those_of_a_real_file() -> None:
    # first, middle and last time of a real concatenation of 2025-10-03: JD (UTC) and local apparent sidereal time (rad)
    real = {
        2460951.992331495: 1.246085221393205,
        2460951.9941210648: 1.2573602055310258,
        2460951.995761504: 1.2676956076566643,
    }
    ours = Time(list(real), format="jd", scale="utc").sidereal_time("apparent", longitude=telescope.location().lon)
    difference = (ours.to_value(u.rad) - np.array(list(real.values()))) * 206264.806
    # a double holds a Julian date to 40 us, or 0.6 mas of rotation; the prediction of UT1 that the observatory used may
    # have been 0.1 ms (1.5 mas) off; 118.2817 W, a longitude that circulates, would be off by 4700 mas
    assert np.abs(difference).max() < 0.003


def test_subbands_descend_through_the_band() -> None:
    assert telescope.subband_frequencies(0)[[0, -1]] == pytest.approx([1498.643188e6, 1487.168579e6], abs=1)
    assert telescope.subband_frequencies(15)[[0, -1]] == pytest.approx([1322.861938e6, 1311.387329e6], abs=1)
    # the real concatenation holds subbands 0 to 7
    assert telescope.subband_frequencies(7)[-1] == 1405137329.1015625
    band = np.concatenate([telescope.subband_frequencies(sb) for sb in range(telescope.N_SUBBANDS)])
    np.testing.assert_array_equal(np.diff(band), -telescope.CHANNEL_WIDTH_HZ)


def test_an_integration_is_96_samples_of_the_correlator() -> None:
    assert (
        pytest.approx(telescope.FAST_SAMPLES_PER_INTEGRATION * 0.134217728, rel=2**-24) == telescope.INTEGRATION_S
    )  # stored as float32
    assert pytest.approx(309.2, abs=0.05) == telescope.GROUP_S


def test_thermal_noise_of_a_group_is_that_of_the_radiometer_equation() -> None:
    bandwidth = telescope.N_CHANNELS * telescope.CHANNEL_WIDTH_HZ
    assert bandwidth == 187.5e6
    assert telescope.radiometer_noise(96, bandwidth, telescope.GROUP_S) == pytest.approx(0.22e-3, abs=0.005e-3)
    assert telescope.radiometer_noise(96, bandwidth, telescope.INTEGRATION_S) == pytest.approx(1.1e-3, abs=0.05e-3)


def test_the_mean_of_all_visibilities_has_the_noise_of_the_image() -> None:
    n_visibilities = 4560 * telescope.N_INTEGRATIONS * telescope.N_CHANNELS * 2
    one = telescope.visibility_noise(telescope.CHANNEL_WIDTH_HZ, telescope.INTEGRATION_S)
    whole = telescope.radiometer_noise(96, telescope.N_CHANNELS * telescope.CHANNEL_WIDTH_HZ, telescope.GROUP_S)
    assert one / np.sqrt(n_visibilities) == pytest.approx(whole, rel=1e-12)


def test_the_orientation_of_the_earth_is_the_installed_one_however_old(monkeypatch):
    """A month after the package was made, and no network: predictions serve."""
    table = IERS_A.open(IERS_A_FILE)
    made = float(table.meta["predictive_mjd"])
    monkeypatch.setattr(Time, "now", classmethod(lambda cls: cls(made + 200.0, format="mjd")))
    telescope.location()
    assert abs(float(Time(made + 190.0, format="mjd").delta_ut1_utc)) < 0.9
