"""Imaging weights against their definitions, and the noise they promise against noise."""

import dataclasses
import itertools

import numpy as np
import pytest

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ImagingError, InputError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.casasyntax import parse_uvrange
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.stokes import stokes_i
from dsa110_contimg.science.weighting import (
    UVShape,
    imaging_weights,
    row_importance,
    thermal_noise,
    uv_shape,
    weighed,
)

N, CELL = 512, np.radians(8.0 / 3600)
LIGHT = 299_792_458.0


@pytest.fixture(scope="module")
def data(observe):
    sigma = telescope.visibility_noise(16 * telescope.CHANNEL_WIDTH_HZ, telescope.INTEGRATION_S)
    return from_dataset(observe([], noise_jy=sigma), 0.003, 0.0237)


def points(data):
    """u, v (wavelengths) of every sample, folded to v >= 0."""
    f = np.concatenate([data.channels[c].frequencies for c in data.channels_index])
    row = np.repeat(np.arange(len(data.uvw)), np.diff(data.offsets))
    u, v = data.uvw[row, :2].T * f / LIGHT
    flip = np.where(v < 0, -1.0, 1.0)
    return u * flip, v * flip


def cell_sums(data, weights):
    u, v = points(data)
    cells = np.stack([np.floor(u * N * CELL), np.floor(v * N * CELL)], axis=-1)
    _, number = np.unique(cells, axis=0, return_inverse=True)
    return np.bincount(number.ravel(), weights.astype(float)), number.ravel()


def test_natural_weights_are_those_of_the_data(data):
    np.testing.assert_array_equal(imaging_weights(data, N, CELL, "natural"), data.weights)


def test_uniform_weights_sum_to_one_in_every_cell(data):
    sums, _ = cell_sums(data, imaging_weights(data, N, CELL, "uniform"))
    np.testing.assert_allclose(sums, 1.0, rtol=1e-5)


@pytest.mark.parametrize("robust", [-1.0, 0.5])
def test_briggs_weights_follow_his_thesis(data, robust):
    density, number = cell_sums(data, data.weights)
    f2 = (5 * 10**-robust) ** 2 / (np.sum(density**2) / density.sum())
    expected = data.weights / (1 + f2 * density[number])
    np.testing.assert_allclose(imaging_weights(data, N, CELL, "briggs", robust), expected, rtol=1e-4)


def test_robust_runs_from_uniform_to_natural(data):
    def shape(scheme, robust=0.0):
        w = imaging_weights(data, N, CELL, scheme, robust).astype(float)
        return w / w.sum()

    uniform, natural = shape("uniform"), shape("natural")
    distance = [np.abs(shape("briggs", r) - natural).sum() for r in (-2, -1, 0, 1, 2)]
    assert all(a > b for a, b in itertools.pairwise(distance))
    assert np.abs(shape("briggs", -2) - uniform).sum() < 0.05 > distance[-1]


def test_points_beyond_the_image_s_uv_plane_get_no_weight(data):
    coarse = imaging_weights(data, 64, np.radians(120 / 3600), "briggs", 0.5)
    u, v = points(data)
    beyond = np.maximum(np.abs(u), v) * np.radians(120 / 3600) > 0.51
    assert beyond.any()
    assert (coarse[beyond] == 0).all()


def test_natural_noise_is_the_radiometer_equation(data):
    expected = telescope.radiometer_noise(
        16, telescope.N_CHANNELS * telescope.CHANNEL_WIDTH_HZ, 4 * telescope.INTEGRATION_S
    )
    assert thermal_noise(data, data.weights) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("scheme", ["natural", "briggs", "uniform"])
def test_the_promised_noise_is_that_of_the_image(data, scheme):
    weights = imaging_weights(data, N, CELL, scheme, 0.5)
    image = Gridder(data, weights, N, CELL, 1e-4, 2).dirty(data.visibilities)
    # an image holds as many independent values as there are cells with data (twice: Hermitian), by their weights
    power, _ = cell_sums(data, weights.astype(float) ** 2 / data.weights)
    independent = 2 * power.sum() ** 2 / np.sum(power**2)
    assert image.std() == pytest.approx(thermal_noise(data, weights), rel=4 / np.sqrt(2 * independent))


@pytest.mark.parametrize("scheme", ["natural", "briggs"])
def test_a_taper_is_the_fourier_transform_of_its_beam(data, scheme):
    fwhm = np.radians(70 / 3600)
    plain = imaging_weights(data, N, CELL, scheme).astype(float)
    tapered = imaging_weights(data, N, CELL, scheme, shape=UVShape(taper_rad=fwhm)).astype(float)
    u, v = points(data)
    angle = np.linspace(-6, 6, 4001) * fwhm
    beam = np.exp(-4 * np.log(2) * (angle / fwhm) ** 2)
    for k in np.flatnonzero(plain)[::5003]:
        transform = np.sum(beam * np.cos(2 * np.pi * np.hypot(u[k], v[k]) * angle)) / beam.sum()
        assert tapered[k] / plain[k] == pytest.approx(transform, abs=1e-4)


@pytest.mark.parametrize("text", [">200m", "<900m", "0.5~3klambda"])
def test_a_range_is_as_if_the_other_baselines_had_not_been_observed(data, text):
    shape = UVShape(parse_uvrange(text))
    u, v = points(data)
    f = np.concatenate([data.channels[c].frequencies for c in data.channels_index])
    wanted = parse_uvrange(text).holds(np.hypot(u, v) * LIGHT / f, 1.0) if text.endswith("m") else None
    if wanted is None:
        wanted = (np.hypot(u, v) >= 500) & (np.hypot(u, v) <= 3000)
    absent = dataclasses.replace(data, weights=np.where(wanted, data.weights, np.float32(0)))
    assert 0.05 < wanted.mean() < 0.95
    for scheme in ("natural", "uniform", "briggs"):
        np.testing.assert_array_equal(
            imaging_weights(data, N, CELL, scheme, shape=shape), imaging_weights(absent, N, CELL, scheme)
        )


def test_a_range_without_baselines_is_an_error(data):
    with pytest.raises(ImagingError, match="range of lengths"):
        imaging_weights(data, N, CELL, "briggs", shape=UVShape(parse_uvrange(">100km")))


def test_baselines_that_are_not_imaged_do_not_count_in_the_budget_of_averaging(data):
    f = 1.4e9 + np.arange(48) * 4e6
    shape = UVShape(parse_uvrange(">300m"))
    worth = row_importance(data.uvw, f, N, CELL, "briggs", 0.5, shape)
    np.testing.assert_array_equal(worth > 0, np.hypot(*data.uvw[:, :2].T) > 300)


def test_options_are_read_in_their_units():
    shape = uv_shape(ImageOptions(uv_taper_arcsec=3600.0, uvrange="0.5~3klambda"))
    assert shape.taper_rad == pytest.approx(np.radians(1))
    assert shape.uvrange == parse_uvrange("500~3000lambda")
    assert uv_shape(ImageOptions()) == UVShape()
    with pytest.raises(InputError, match="range of baseline lengths"):
        uv_shape(ImageOptions(uvrange="long ones"))


@pytest.mark.parametrize("scheme", ["natural", "briggs"])
def test_views_are_given_the_weights_that_images_are_made_with(observe, scheme):
    """In two windows as in one, with flags; a taper and a range are in them."""
    sky = observe([], noise_jy=0.1)
    sky["FLAG"][0, 3, :5] = True
    shape = UVShape(parse_uvrange("0.1~2klambda"), 1e-4)
    expected = imaging_weights(from_dataset(sky, 0.0, 0.02), N, CELL, scheme, 0.5, shape)
    half = sky.sizes["frequency"] // 2
    views = [stokes_i(sky.isel(frequency=part)) for part in (slice(None, half), slice(half, None))]
    found = weighed(views, N, CELL, scheme, 0.5, shape)
    together = np.concatenate([view["WEIGHT"].to_numpy() for view in found], axis=2).ravel()
    # natural weights of a mean and of a sum differ by a factor; Briggs's are relative to them
    np.testing.assert_allclose(together / together.max(), expected / expected.max(), rtol=1e-4, atol=1e-7)
    assert (together == 0).sum() == (expected == 0).sum() > 0
    np.testing.assert_array_equal(found[0]["VISIBILITY"], views[0]["VISIBILITY"])
