"""Pixels and directions against astropy's WCS."""

import numpy as np
import pytest
from astropy.wcs import WCS

from dsa110_contimg.science.grid import SkyGrid

GRID = SkyGrid(400, np.radians(20 / 3600), np.radians(359.9), np.radians(54.6))


@pytest.fixture(scope="module")
def wcs():
    out = WCS(naxis=2)
    out.wcs.ctype = ["RA---SIN", "DEC--SIN"]
    out.wcs.crpix = [201, 201]
    out.wcs.crval = [359.9, 54.6]
    out.wcs.cdelt = [-20 / 3600, 20 / 3600]
    return out


def test_directions_of_pixels_are_those_of_the_fits_standard(wcs):
    x, y = np.meshgrid(np.linspace(0, 399, 9), np.linspace(0, 399, 9))
    ra, dec = GRID.sky(x, y)
    expected_ra, expected_dec = wcs.wcs_pix2world(x.ravel(), y.ravel(), 0)
    np.testing.assert_allclose(np.degrees(ra).ravel(), expected_ra, atol=1e-10)
    np.testing.assert_allclose(np.degrees(dec).ravel(), expected_dec, atol=1e-10)


def test_pixels_of_directions_invert_it():
    x, y = np.meshgrid(np.linspace(-10, 420, 7), np.linspace(-10, 420, 7))
    back_x, back_y = GRID.pixel(*GRID.sky(x, y))
    np.testing.assert_allclose(back_x, x, atol=1e-8)
    np.testing.assert_allclose(back_y, y, atol=1e-8)


def test_the_far_side_of_the_sky_has_no_pixel():
    x, _ = GRID.pixel(np.radians(179.9), np.radians(-54.6))
    assert np.isnan(x)


def test_a_smooth_map_is_true_between_its_coarse_points():
    def function(ra, dec):
        return np.cos(40 * (dec - GRID.dec)) * np.cos(30 * np.sin(ra - GRID.ra))

    got = GRID.map(function, np.radians(0.15))
    y, x = np.mgrid[0:400:7, 0:400:7]
    np.testing.assert_allclose(got[::7, ::7], function(*GRID.sky(x, y)), atol=1e-4)
