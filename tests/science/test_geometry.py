"""Size and cell of an image that nobody asked for: round, enough for beam and resolution, and steady."""

import numpy as np
import pytest
import xarray as xr
from scipy.constants import speed_of_light

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.beam import airy_power
from dsa110_contimg.science.geometry import derived_cell, derived_pixels, geometry
from dsa110_contimg.simulate.array import build_array

BAND = telescope.TOP_FREQUENCY_HZ - telescope.CHANNEL_WIDTH_HZ * np.arange(telescope.N_CHANNELS)[::-1]
SUBBAND = telescope.N_CHANNELS_PER_SUBBAND


def view(uvw, frequencies, **attrs):
    return xr.Dataset({"UVW": (("time", "baseline", "uvw"), uvw)}, {"frequency": frequencies}, attrs)


@pytest.fixture(scope="module")
def ours():
    return np.array([build_array(96).baselines_m])


@pytest.mark.parametrize(
    ("tier", "expected"), [("standard", (2400, 6.0)), ("development", (1800, 8.0)), ("high_precision", (4096, 4.0))]
)
def test_dsa_110_gets_its_sizes_whatever_is_missing_at_the_edges(ours, tier, expected):
    options = ImageOptions(tier=tier)
    missing = np.where(np.arange(ours.shape[1])[None, :, None] % 3 == 0, np.nan, ours)
    for uvw, band in ((ours, BAND), (missing, BAND), (ours, BAND[SUBBAND:]), (ours, BAND[:-SUBBAND])):
        assert geometry(options, [view(uvw, band)])[:2] == expected
    # windows of one field count together
    assert geometry(options, [view(ours, BAND[:100]), view(ours[:, :9], BAND[100:])])[:2] == expected


def test_dsa_110_has_one_grid_whichever_antennas_were_recorded(ours):
    few = np.array([build_array(16).baselines_m])
    assert geometry(ImageOptions(), [view(few, BAND)])[:2] == (1800, 8.0)
    assert geometry(ImageOptions(), [view(few, BAND, telescope_name=telescope.TELESCOPE_NAME)])[:2] == (2400, 6.0)


def test_what_is_given_stays_and_what_is_not_follows_it(ours):
    data = [view(ours, BAND)]
    assert geometry(ImageOptions(n_pixels=700, cell_arcsec=3.3), data) == (700, 3.3, "")
    assert geometry(ImageOptions(n_pixels=700), data)[:2] == (700, 6.0)
    assert geometry(ImageOptions(cell_arcsec=12.0), data)[:2] == (1200, 12.0)
    assert geometry(ImageOptions(quick=True), data)[:2] == (512, 6.0)
    assert geometry(ImageOptions(uvrange="<500m"), data)[:2] == (480, 30.0)
    told = geometry(ImageOptions(), data).told
    assert told == "2400 x 6 arcsec derived from 2602 m, 1311.39 to 1498.64 MHz, dishes of 4.65 m"


@pytest.mark.parametrize(
    ("longest_m", "frequency_hz", "dish_m"), [(2601.0, 1.4e9, 4.65), (36_400.0, 1.5e9, 25.0), (14_700.0, 1.2e9, 12.0)]
)
@pytest.mark.parametrize(
    ("tier", "least", "edge"), [("standard", 2.5, 0.21), ("development", 1.875, 0.21), ("high_precision", 3.75, 0.12)]
)
def test_pixels_sample_the_longest_baseline_and_cover_the_beam(longest_m, frequency_hz, dish_m, tier, least, edge):
    cell = derived_cell(longest_m, frequency_hz, tier)
    samples = speed_of_light / frequency_hz / longest_m / np.radians(cell / 3600)
    assert least <= samples < least * 4 / 3  # round numbers are a third apart at most
    n_pixels = derived_pixels(cell, frequency_hz, dish_m, tier)
    assert n_pixels % 8 == 0
    while n_pixels % 2 == 0 or n_pixels % 3 == 0 or n_pixels % 5 == 0:
        n_pixels //= next(prime for prime in (2, 3, 5) if n_pixels % prime == 0)
    assert n_pixels == 1
    half = derived_pixels(cell, frequency_hz, dish_m, tier) / 2 * np.radians(cell / 3600)
    assert 0.0 < airy_power(half, frequency_hz, dish_m) < edge


def test_a_dipole_sees_the_sky_and_its_image_ends_above_the_horizon():
    cell = derived_cell(1000.0, 6e7)
    corner = np.sqrt(2.0) * derived_pixels(cell, 6e7, 1.0) / 2 * np.radians(cell / 3600)
    assert 0.9 < corner < 1.0


def test_nothing_to_derive_from_says_so(ours):
    for data in (view(np.zeros((2, 3, 3)), BAND), view(ours, BAND, dish_diameter=0.0)):
        with pytest.raises(ImagingError, match="cannot be derived"):
            geometry(ImageOptions(), [data])
        assert geometry(ImageOptions(n_pixels=512, cell_arcsec=5.0), [data])[:2] == (512, 5.0)
