"""Spectra in shares of the band: exact sums, the beam's own index, and what is refused."""

import numpy as np
import pytest
from pydantic import ValidationError

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.beam import AIRY, half_power_radius
from dsa110_contimg.science.deconvolution import band_mean
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.imaging import require
from dsa110_contimg.science.response import Response
from dsa110_contimg.science.spectral import shares_of_band, slope, spectral_index
from dsa110_contimg.science.weighting import imaging_weights

N, CELL = 256, np.radians(12.0 / 3600)
GRID = SkyGrid(N, CELL, 1.4, np.radians(16.6))
OPTIONS = ImageOptions(n_pixels=N, cell_arcsec=12.0, deconvolver="mtmfs", channel_groups=3)


def gridded(observe, **more):
    data = from_dataset(observe([(0.002, 0.001, 1.0)], n_antennas=12, **more), 0.003, 0.0237)
    return data, imaging_weights(data, N, CELL, "briggs", 0.5)


def test_the_mean_of_the_shares_is_the_image_of_the_band(observe):
    data, weights = gridded(observe)
    shares = shares_of_band(data, weights, GRID, CELL, 3, OPTIONS)
    assert len(shares) == 3
    sums = np.array([share.gridder.weight_sum for share in shares])
    assert sums.sum() == pytest.approx(weights.sum(dtype=float))
    images = np.stack([share.gridder.dirty(share.gridder.data.visibilities) for share in shares])
    whole = Gridder(data, weights, N, CELL, 1e-5, 2).dirty(data.visibilities)
    np.testing.assert_allclose(band_mean(images, sums), whole, atol=3e-4)


def test_a_slope_is_that_of_a_line():
    frequencies, weights = np.array([1.3e9, 1.4e9, 1.5e9]), np.array([1.0, 2.0, 4.0])
    mean = np.average(frequencies, weights=weights)
    plane = np.random.default_rng(3).normal(size=(2, 5, 5)).astype(np.float32)
    images = plane[0] + plane[1] * (frequencies / mean - 1)[:, None, None]
    np.testing.assert_allclose(slope(images.astype(np.float32), frequencies, weights), plane[1], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(band_mean(images, weights), plane[0], rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def response():
    frequencies = np.linspace(1.317e9, 1.493e9, 16)
    return Response(np.array([1.4]), np.array([0.3]), frequencies, np.ones((1, 16)), AIRY)


def test_the_beams_own_index_is_that_of_its_formula(response):
    radius = half_power_radius(response.mean_frequency_hz)
    f, step = response.mean_frequency_hz, 1e6
    expected = f * np.diff(np.log(AIRY.power(radius, np.array([f - step, f + step]))))[0] / (2 * step)
    assert expected == pytest.approx(-1.48, abs=0.01)
    assert response.index_at(np.array([1.4]), np.array([0.3 + radius]))[0] == pytest.approx(expected, abs=0.01)
    assert abs(response.index_at(np.array([1.4]), np.array([0.3]))[0]) < 1e-6


@pytest.mark.parametrize(("index", "curved"), [(-4.0, 0.04), (-2.0, 0.01), (-0.7, 0.01), (0.0, 0.01), (2.0, 0.01)])
@pytest.mark.parametrize("radius", [0.0, 0.5, 1.0])
def test_slope_over_mean_is_the_index_plus_the_beams(response, index, curved, radius):
    ra, dec = np.array([1.4]), np.array([0.3 + radius * half_power_radius(response.mean_frequency_hz)])
    mean, along = response.terms(ra, dec, index)
    assert mean[0] == pytest.approx(response.at(ra, dec, index)[0], rel=1e-12)
    assert along[0] / mean[0] - response.index_at(ra, dec)[0] == pytest.approx(index, abs=curved)


def test_the_error_of_an_index_is_the_scatter_of_many():
    rng = np.random.default_rng(5)
    mean = 1.0 + 0.002 * rng.normal(size=(300, 300)).astype(np.float32)
    along = -2.0 + 0.05 * rng.normal(size=(300, 300)).astype(np.float32)
    found = spectral_index((mean, along), (0.002, 0.05), np.full(mean.shape, -0.5, np.float32), 0.5)
    assert found.alpha.mean() == pytest.approx(-1.5, abs=0.01)
    assert found.alpha.std() == pytest.approx(found.error.mean(), rel=0.02)


def test_an_index_is_blank_where_it_is_too_weak_negative_or_beyond_the_beam():
    mean = np.array([[1.0, 0.01, -1.0, 1.0]], np.float32)
    own = np.array([[0.0, 0.0, 0.0, np.nan]], np.float32)
    found = spectral_index((mean, -mean), (0.001, 0.03), own, 0.5)
    assert np.isfinite(found.alpha).tolist() == np.isfinite(found.error).tolist() == [[True, False, False, False]]


def test_mtmfs_is_two_terms_and_a_way_to_find_components():
    assert (OPTIONS.deconvolver, OPTIONS.spectral_terms) == ("clean", 2)
    scales = ImageOptions(deconvolver="mtmfs", scales_arcsec=(0.0, 60.0), spectral_terms=3)
    assert (scales.deconvolver, scales.spectral_terms) == ("multiscale", 3)
    assert ImageOptions.model_validate_json(OPTIONS.model_dump_json()) == OPTIONS
    assert ImageOptions().spectral_terms == 1
    with pytest.raises(ValidationError):
        ImageOptions(spectral_terms=0)


def test_more_terms_than_shares_are_refused(observe):
    with pytest.raises(ImagingError, match="more terms than the band has shares"):
        require(ImageOptions(spectral_terms=3, channel_groups=2), "native")
    sky = observe([(0.002, 0.001, 1.0)], n_antennas=8)
    sky["FLAG"][:, :, sky.sizes["frequency"] // 3 :] = True
    data = from_dataset(sky, 0.0, 0.0237)
    with pytest.raises(ImagingError, match="Too little of the band"):
        shares_of_band(data, imaging_weights(data, N, CELL, "natural"), GRID, CELL, 3, OPTIONS)
