"""Minor cycles in wider images than were asked for, and the major cycles that they save."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.fft import next_fast_len

from dsa110_contimg import telescope
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.deconvolution import COARSE, clean, robust_rms
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.minor import _noise_with_margin, padded_width, widened
from dsa110_contimg.science.weighting import imaging_weights, thermal_noise

N, CELL = 512, np.radians(10.0 / 3600)
OPTIONS = ImageOptions(n_pixels=N, cell_arcsec=10.0)
SIGMA = telescope.visibility_noise(16 * telescope.CHANNEL_WIDTH_HZ, telescope.INTEGRATION_S)


def gridder_of(dataset):
    data = from_dataset(dataset, 0.001, 0.0237)
    return Gridder(data, imaging_weights(data, N, CELL, "briggs", 0.5), N, CELL, 1e-4, 2)


@given(st.integers(16, 4200).map(lambda half: 2 * half))
def test_an_image_is_widened_by_a_few_per_cent_to_where_transforms_are_fast(n):
    width = padded_width(n)
    assert n <= width <= 1.03 * n
    assert width % 2 == 0
    transform = int(np.ceil(1.1 * width))
    transform += transform % 2
    assert width == n or next_fast_len(transform) == transform


def test_our_two_sizes_are_as_wide_as_they_need_be():
    assert padded_width(2400) == 2400  # 2640 = 2^4 3 5 11
    assert padded_width(4096) == 4122  # 4536 = 2^3 3^4 7, where 4506 = 2 x 3 x 751


@given(st.integers(4, 40).map(lambda half: 2 * half), st.integers(0, 10).map(lambda half: 2 * half))
def test_the_centre_stays_the_centre(n, more):
    image = np.random.default_rng(n).normal(size=(2, n, n)).astype(np.float32)
    wide = widened(image, n + more)
    assert wide.shape == (2, n + more, n + more)
    assert (wide[:, (n + more) // 2, (n + more) // 2] == image[:, n // 2, n // 2]).all()
    assert np.count_nonzero(wide) == np.count_nonzero(image)


@pytest.mark.parametrize(("n", "width"), [(1000, 1030), (1000, 1000), (900, 902)])
def test_zeros_around_it_lower_the_noise_by_what_is_reckoned(n, width):
    noise = np.random.default_rng(3).normal(size=(n, n)).astype(np.float32)
    # the error of a median absolute deviation of N numbers is 1.17 / sqrt(N) (Huber 1981)
    assert robust_rms(widened(noise, width)) == pytest.approx(_noise_with_margin(n, width), rel=4 * 1.17 / n)


@pytest.fixture(scope="module")
def to_the_edge(observe):
    """Sources within the image, at two of its edges and in a corner, in an image that is widened; 30 to 2000 sigma."""
    assert padded_width(N) > N
    pixels = [(300, 200, 1.2), (3, 260, 0.5), (250, 508, 0.2), (506, 4, 0.3), (120, 90, 0.02)]
    sources = [(-(x - N // 2) * CELL, (y - N // 2) * CELL, flux) for x, y, flux in pixels]
    return pixels, gridder_of(observe(sources, n_times=8, noise_jy=SIGMA))


def test_sources_at_the_edge_are_found_and_nothing_beyond_it(flat_sky, to_the_edge):
    pixels, g = to_the_edge
    result = clean(g, g.psf(), OPTIONS, flat_sky(g))
    thermal = thermal_noise(g.data, g.weights)
    assert result.model.shape == result.residual.shape == (N, N)
    assert robust_rms(result.residual) == pytest.approx(thermal, rel=0.05)
    assert np.abs(result.residual).max() < 6.0 * thermal
    for x, y, flux in pixels:
        near = result.model[max(y - 5, 0) : y + 6, max(x - 5, 0) : x + 6].sum()
        # what is left below the threshold, and 1 % of the flux for cells between which it may stand
        assert near == pytest.approx(flux, abs=5.0 * thermal + 0.01 * flux)


def test_the_residual_is_that_of_the_visibilities_whatever_was_made_of_it_between(flat_sky, to_the_edge):
    _, g = to_the_edge
    result = clean(g, g.psf(), OPTIONS, flat_sky(g))
    left = g.dirty(g.data.visibilities - g.predict(result.model))
    assert np.abs(result.residual - left).max() < COARSE * g.accuracy * np.abs(left).max()


def test_faint_sources_take_one_major_cycle(flat_sky, observe):
    g = gridder_of(observe([(0.004, -0.003, 0.015), (-0.006, 0.001, 0.012)], n_times=8, noise_jy=SIGMA))
    thermal = thermal_noise(g.data, g.weights)
    assert 20.0 * thermal > 0.015  # they are what is called small
    result = clean(g, g.psf(), OPTIONS, flat_sky(g))
    assert result.cycles[-1].number == 1
    assert result.model.sum() == pytest.approx(0.027, abs=2 * 5.0 * thermal)
