"""The restoring beam."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.science.restoring import Beam, fit_beam, restore

N, CELL = 256, np.radians(6 / 3600)
ARCSEC = np.radians(1 / 3600)


def gaussian(major, minor, angle, x0=N // 2, y0=N // 2):
    """FWHM in arcsec, angle in deg north through east; east is towards smaller x."""
    y, x = np.mgrid[:N, :N]
    east, north = -(x - x0) * 6.0, (y - y0) * 6.0
    along = north * np.cos(np.radians(angle)) + east * np.sin(np.radians(angle))
    across = -north * np.sin(np.radians(angle)) + east * np.cos(np.radians(angle))
    return np.exp(-4 * np.log(2) * ((along / major) ** 2 + (across / minor) ** 2)).astype(np.float32)


@settings(max_examples=30, deadline=None)
@given(st.floats(25, 90), st.floats(1.1, 3.0), st.floats(0, 179.9))
def test_a_gaussian_gives_back_its_own_shape(minor, ratio, angle):
    beam = fit_beam(gaussian(minor * ratio, minor, angle), CELL)
    assert beam.major / ARCSEC == pytest.approx(minor * ratio, rel=1e-4)
    assert beam.minor / ARCSEC == pytest.approx(minor, rel=1e-4)
    turned = (np.degrees(beam.angle) - angle + 90) % 180 - 90
    assert abs(turned) < 0.01 / (ratio - 1)


def test_sidelobes_do_not_enter_the_fit():
    psf = gaussian(44, 20, 95) + 0.3 * gaussian(44, 20, 95, x0=N // 2 + 30) + 0.3 * gaussian(44, 20, 95, x0=N // 2 - 30)
    beam = fit_beam(psf / psf.max(), CELL)
    assert beam.major / ARCSEC == pytest.approx(44, rel=0.01)
    assert beam.minor / ARCSEC == pytest.approx(20, rel=0.01)


def test_pixels_too_coarse_for_the_beam_are_an_error():
    with pytest.raises(ImagingError, match="main lobe"):
        fit_beam(gaussian(5, 4, 0), CELL)


def test_a_component_becomes_the_beam_with_its_flux_as_peak():
    model, residual = np.zeros((N, N), np.float32), np.full((N, N), 0.25, np.float32)
    model[100, 60] = 2.0
    beam = Beam(44 * ARCSEC, 20 * ARCSEC, np.radians(95))
    expected = 2.0 * gaussian(44, 20, 95, x0=60, y0=100) + 0.25
    np.testing.assert_allclose(restore(model, residual, beam, CELL), expected, atol=3e-6)


def test_a_component_at_the_edge_does_not_wrap_around():
    model = np.zeros((N, N), np.float32)
    model[0, N - 1] = 1.0
    image = restore(model, np.zeros_like(model), Beam(60 * ARCSEC, 60 * ARCSEC, 0.0), CELL)
    assert image[0, N - 1] == pytest.approx(1.0, abs=1e-5)
    assert np.abs(image[:, : N // 2]).max() < 1e-6 > np.abs(image[N // 2 :]).max()
