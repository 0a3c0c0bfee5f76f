"""The primary beam against its textbook values and against astropy's angles."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.special import j0

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.beam import (
    AiryBeam,
    TabulatedBeam,
    airy_power,
    drift_averaged,
    half_power_radius,
    separation,
)

DEG = np.pi / 180
STEP = telescope.INTEGRATION_S * 2 * np.pi / 86164.0905


def test_full_width_at_half_maximum_and_first_null_are_those_of_the_dish():
    assert 2 * half_power_radius(1.4e9) / DEG == pytest.approx(2.715, abs=0.001)
    assert airy_power(half_power_radius(1.4e9), 1.4e9) == pytest.approx(0.5, abs=1e-9)
    assert airy_power(3.22 * DEG, 1.4e9) < 1e-6


def test_the_pattern_is_the_transform_of_a_uniform_disc():
    for theta in np.array([0.3, 1.0, 2.5, 4.0]) * DEG:
        k = 2 * np.pi * 1.4e9 / 299_792_458.0 * np.sin(theta)
        radius = telescope.DISH_DIAMETER_M / 2
        field = quad(lambda r, k=k: j0(k * r) * r, 0, radius)[0] / (radius**2 / 2)
        assert airy_power(theta, 1.4e9) == pytest.approx(field**2, abs=1e-10)


@given(st.floats(0, 1.5), st.floats(1.3e9, 1.5e9))
def test_the_response_lies_between_zero_and_one(theta, frequency):
    assert 0.0 <= airy_power(theta, frequency) <= 1.0


@given(st.floats(0, 6.28), st.floats(-1.5, 1.5), st.floats(0, 6.28), st.floats(-1.5, 1.5))
def test_separations_are_those_of_astropy(ra1, dec1, ra2, dec2):
    expected = SkyCoord(ra1 * u.rad, dec1 * u.rad).separation(SkyCoord(ra2 * u.rad, dec2 * u.rad)).rad
    assert separation(ra1, dec1, ra2, dec2) == pytest.approx(expected, abs=1e-12)


def test_the_beam_of_a_drifting_group_is_the_mean_over_its_pointings():
    pointing = 1.4 + STEP * (np.arange(24) - 11.5)
    dec = np.full(24, 16 * DEG)
    frequencies = np.array([1.33e9, 1.45e9])
    weights = np.random.default_rng(1).uniform(0.5, 2.0, (24, 2))
    source = SkyCoord(81.3 * u.deg, 17.1 * u.deg)
    total = 0.0
    for t in range(24):
        theta = source.separation(SkyCoord(pointing[t] * u.rad, dec[t] * u.rad)).rad
        total += sum(
            w * airy_power(theta, f) * (f / 1.4e9) ** -0.8 for w, f in zip(weights[t], frequencies, strict=True)
        )
    got = drift_averaged(source.ra.rad, source.dec.rad, pointing, dec, frequencies, weights, -0.8)
    assert got == pytest.approx(total / weights.sum(), rel=1e-10)


def test_the_beam_at_mid_time_is_five_per_cent_too_high_on_axis():
    pointing, ones = 1.4 + STEP * (np.arange(24) - 11.5), np.ones((24, 1))
    mean = drift_averaged(1.4, 16 * DEG, pointing, np.full(24, 16 * DEG), np.array([1.4e9]), ones)
    assert 1 / mean - 1 == pytest.approx(0.048, abs=0.004)


def test_a_larger_dish_has_a_narrower_beam():
    at = (0.2 * DEG, 0.0, np.zeros(1), np.zeros(1), np.array([1.4e9]), np.ones((1, 1)))
    assert drift_averaged(*at, beam=AiryBeam(25.0)) == pytest.approx(airy_power(0.2 * DEG, 1.4e9, 25.0))


# ---- a measured beam ----------------------------------------------------------------------------------------------


def tabulated(diameter, last_deg=2.5, frequencies=(1.32e9, 1.4e9, 1.48e9), n=26):
    angle, frequency = np.radians(np.linspace(0.0, last_deg, n)), np.array(frequencies)
    power = airy_power(angle, frequency[:, None], diameter)
    return TabulatedBeam(angle, frequency, power, np.zeros(power.shape))


@pytest.mark.parametrize("diameter", [4.4, 4.65, 4.9])
def test_a_table_of_the_airy_pattern_is_the_airy_pattern(diameter):
    theta, frequency = np.radians(np.linspace(0, 6, 61))[:, None], np.linspace(1.312e9, 1.498e9, 7)
    np.testing.assert_allclose(
        tabulated(diameter).power(theta, frequency), airy_power(theta, frequency, diameter), atol=1e-4
    )
    assert tabulated(diameter).diameter_m == pytest.approx(diameter, rel=1e-3)


def test_one_frequency_is_scaled_and_a_short_table_continues_as_airy():
    beam = tabulated(4.4, last_deg=1.6, frequencies=(1.4e9,), n=17)
    theta, frequency = np.radians(np.linspace(0, 8, 81))[:, None], np.linspace(1.312e9, 1.498e9, 5)
    np.testing.assert_allclose(beam.power(theta, frequency), airy_power(theta, frequency, 4.4), atol=2e-4)


def test_a_beam_of_any_shape_is_followed_between_its_angles_and_is_never_negative():
    angle = np.radians(np.linspace(0.0, 3.0, 31))
    profile = np.exp(-4 * np.log(2) * (angle / np.radians(2.9)) ** 2)[None]
    beam = TabulatedBeam(angle, np.array([1.4e9]), profile, profile * 0)
    theta = np.radians(np.linspace(0, 3, 200))
    expected = np.exp(-4 * np.log(2) * (theta / np.radians(2.9)) ** 2)
    np.testing.assert_allclose(beam.power(theta, 1.4e9), expected, atol=1e-5)
    assert (beam.power(np.linspace(0, np.pi, 500), 1.4e9) >= 0).all()
    assert beam.power(np.radians(120.0), 1.4e9) == 0.0


def test_a_drift_average_takes_the_beam_it_is_given():
    at = (1.4, 17 * DEG, np.array([1.4]), np.array([16 * DEG]), np.array([1.4e9]), np.ones((1, 1)))
    assert drift_averaged(*at, beam=tabulated(4.4)) == pytest.approx(airy_power(1 * DEG, 1.4e9, 4.4), abs=1e-5)


def test_a_dipole_is_no_dish():
    with pytest.raises(InputError, match="no half-power radius"):
        half_power_radius(30e6, 2.0)
