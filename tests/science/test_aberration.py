"""The scale of the field against apparent places from ERFA, by way of astropy."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import CIRS, SkyCoord
from astropy.time import Time

from dsa110_contimg import telescope
from dsa110_contimg.science.aberration import aberration_scale


@pytest.mark.parametrize("mjd", [61066.2, 61157.7, 61249.0, 61340.5])
@pytest.mark.parametrize(("ra", "dec"), [(80.3, 16.6), (202.8, 30.5), (300.0, 71.0)])
def test_true_angles_are_apparent_ones_times_the_scale(mjd, ra, dec):
    frame = CIRS(obstime=Time(mjd, format="mjd"), location=telescope.location())
    centre = SkyCoord(ra * u.deg, dec * u.deg)
    around = centre.directional_offset_by(np.arange(0, 360, 45) * u.deg, 1.0 * u.deg)
    apparent = centre.transform_to(frame).separation(around.transform_to(frame)).deg
    # pairs across the field: the scale at its middle, without the gradient of the aberration
    mean = (apparent[:4] + apparent[4:]) / 2
    got = aberration_scale(np.radians(ra), np.radians(dec), mjd)
    # what is left out: the diurnal velocity (1.2e-6) and light deflection by the sun at these elongations (1e-7)
    np.testing.assert_allclose(1.0 / mean, got, atol=2e-6)


def test_the_field_looks_smaller_where_the_earth_moves_towards_it():
    scales = [aberration_scale(np.radians(80.3), np.radians(16.6), 61066.2 + d) for d in range(0, 365, 5)]
    assert max(scales) == pytest.approx(1 + 9.9e-5, abs=1e-5)
    assert min(scales) == pytest.approx(1 - 9.9e-5, abs=1e-5)
