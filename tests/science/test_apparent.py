"""Sources seen through the drifting beam: predicted exactly, and told apart from the model image they come from."""

import numpy as np
import pytest
from scipy.constants import speed_of_light

from dsa110_contimg.science.apparent import INDEX_PRIOR, MAX_PIXELS, TELLING, ApparentSky
from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.beam import airy_power, separation
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.point_kernels import Points, are_small, in_clusters, predict_clusters, predict_points
from dsa110_contimg.science.weighting import imaging_weights

N, CELL, DEC = 768, np.radians(8.0 / 3600), np.radians(16.6)
GRID = SkyGrid(N, CELL, 1.4, DEC)
X, Y = 90, 610
INDEX = -0.2


@pytest.fixture(scope="module")
def seen(observe):
    """One source of 1 Jy at 1.4 GHz through the beam, and the machinery to predict it."""
    l, m = -(X - N // 2) * CELL, (Y - N // 2) * CELL
    dataset = observe([(l, m, 1.0)], n_times=24, n_channels=192)
    ra, dec = GRID.sky(X, Y)
    theta = separation(ra, dec, dataset["pointing_ra"].to_numpy(), dataset["pointing_dec"].to_numpy())
    frequency = dataset["frequency"].to_numpy()
    gain = airy_power(theta[:, None], frequency) * (frequency / 1.4e9) ** INDEX
    dataset["VISIBILITY"] = dataset["VISIBILITY"] * gain.astype(np.float32)[:, None, :, None]
    # an integration and a channel without length smear nothing, which `observe` does not simulate
    dataset.attrs["integration_time"] = 1e-6
    data = from_dataset(dataset, 0.0, 0.0237)
    object.__setattr__(data.channels[0], "native_width_hz", 1e-3)
    g = Gridder(data, imaging_weights(data, N, CELL, "briggs", 0.5), N, CELL, 1e-5, 2)
    return g, ApparentSky(g, GRID, 3)


def apparent_flux(g):
    """Flux of the source in the image: the mean over its weights."""
    model = np.zeros((N, N), np.float32)
    model[Y, X] = 1.0
    return float((g.weights * g.data.visibilities * np.conj(g.predict(model))).sum().real / g.weight_sum)


def test_once_its_spectrum_is_known_a_source_is_predicted_to_a_few_parts_in_a_thousand(seen):
    g, sky = seen
    model = np.zeros((N, N), np.float32)
    model[Y, X] = apparent_flux(g)
    sky._known = np.array([[X, Y, INDEX]])
    left = g.data.visibilities - sky.predict(model, noise_jy=1e-6)
    naive = g.data.visibilities - g.predict(model)
    assert np.sqrt(np.mean(np.abs(left) ** 2)) < 3e-3 * model[Y, X]
    assert np.sqrt(np.mean(np.abs(naive) ** 2)) > 0.15 * model[Y, X]


def test_the_spectral_index_is_learnt_from_the_residual(seen):
    g, sky = seen
    model = np.zeros((N, N), np.float32)
    model[Y, X] = apparent_flux(g)
    sky._known = np.empty((0, 3))
    for _ in range(3):
        residual = g.data.visibilities - sky.predict(model, noise_jy=1e-6)
        sky.learn(residual, noise_jy=1e-6)
    assert sky._known[0, :2] == pytest.approx([X, Y])
    assert sky._known[0, 2] == pytest.approx(INDEX, abs=0.02)


def test_without_signal_the_index_stays_what_it_was_before(seen):
    g, sky = seen
    model = np.zeros((N, N), np.float32)
    model[Y, X] = apparent_flux(g)
    sky._known = np.empty((0, 3))
    residual = g.data.visibilities - sky.predict(model, noise_jy=1e-6)
    for noise in (10.0, model[Y, X] / 1.01 / TELLING):  # not asked, and asked in vain
        sky.learn(residual, noise_jy=noise)
        told = sky._index(np.array([X]), np.array([Y]))
        assert told == pytest.approx(INDEX_PRIOR[0], abs=INDEX_PRIOR[1])


def test_an_error_of_the_flux_is_not_taken_for_a_slope(seen):
    g, sky = seen
    model = np.zeros((N, N), np.float32)
    model[Y, X] = 0.8 * apparent_flux(g)
    sky._known = np.array([[X, Y, INDEX]])
    residual = g.data.visibilities - sky.predict(model, noise_jy=1e-6)
    sky.learn(residual, noise_jy=1e-6)
    assert sky._known[0, 2] == pytest.approx(INDEX, abs=0.05)


def test_sources_and_rest_add_up_to_the_model(observe):
    """With a beam and a spectrum that do not vary, both ways of prediction are one."""
    dataset = observe([], n_times=2, n_channels=48)
    dataset["pointing_ra"][:] = 1.4
    dataset.attrs["integration_time"] = 1e-6
    dataset.attrs["dish_diameter"] = 0.05
    data = from_dataset(dataset, 0.001, 0.0237)
    for channels in data.channels:
        object.__setattr__(channels, "native_width_hz", 1e-3)
    g = Gridder(data, data.weights, N, CELL, 1e-5, 2)
    sky = ApparentSky(g, GRID, 3)
    rng = np.random.default_rng(3)
    model = np.zeros((N, N), np.float32)
    for x, y in rng.integers(20, N - 20, (40, 2)):
        model[y : y + 2, x : x + 2] = 10 ** rng.uniform(-3, 0)
    sky._known = np.array([[x, y, 0.0] for y, x in zip(*np.nonzero(model), strict=True)])
    np.testing.assert_allclose(sky.predict(model, noise_jy=1e-3), g.predict(model), atol=3e-3)


def test_no_more_than_a_bounded_number_of_pixels_is_predicted_one_by_one(observe):
    data = from_dataset(observe([], n_times=1), 0.001, 0.0237)
    g = Gridder(data, data.weights, N, CELL, 1e-3, 2)
    sky = ApparentSky(g, GRID, 3)
    model = np.zeros((N, N), np.float32)
    model[::8, ::8] = np.random.default_rng(0).uniform(1, 2, (N // 8, N // 8))
    sky.predict(model, noise_jy=1e-6)
    assert 0.9 * MAX_PIXELS < len(sky._sources.flux_of) <= MAX_PIXELS
    assert sky._sources.flux.min() > np.median(model[model > 0])


def test_an_empty_model_predicts_nothing(seen):
    g, sky = seen
    assert not sky.predict(np.zeros((N, N), np.float32), noise_jy=1e-3).any()
    sky.learn(g.data.visibilities, noise_jy=1e-3)


@pytest.mark.parametrize(("spread", "phase"), [(3, (0.1, 0.9)), (13, (1.0, 3.7))])
def test_clusters_are_the_sum_of_their_points(observe, spread, phase):
    """The series in frequency against the points one by one, with a gain that varies over time and band.

    Above 0.93 rad at the edges of the band it has more terms than are evaluated at once.
    """
    data = from_dataset(observe([], n_times=3, n_channels=192), 0.001, 0.0237)
    g = Gridder(data, data.weights, N, CELL, 1e-5, 2)
    sky = ApparentSky(g, GRID, 3)
    rng = np.random.default_rng(5)
    source = np.repeat(np.arange(6), 20)
    centre = rng.integers(40, N - 40, (6, 2))[source]
    x, y = (centre + rng.integers(-spread, spread + 1, (len(source), 2))).T
    flux = rng.normal(0.3, 1.0, len(source)).astype(np.float32)
    mean = [np.bincount(source, np.abs(flux) * v) / np.bincount(source, np.abs(flux)) for v in (x, y)]
    points = Points(sky._lmn(x, y), source, sky._lmn(*mean), data.track.integration_s)
    gain = rng.uniform(0.2, 1.0, (3, len(sky._response.frequencies), 6)).astype(np.float32)
    together, single = (np.zeros(len(data.weights), np.complex64) for _ in range(2))
    along_bins, clusters = np.ascontiguousarray(np.swapaxes(gain, 1, 2)), in_clusters(points, flux)
    frequencies, longest = sky._channels.frequencies, np.sqrt((sky._rows.uvw**2).sum(axis=-1).max())
    assert phase[0] < np.pi * np.ptp(frequencies) / speed_of_light * longest * clusters.reach < phase[1]
    predict_clusters(sky._rows, sky._channels, points, clusters, along_bins, together)
    predict_points(sky._rows, sky._channels, points, np.ascontiguousarray(gain[..., source] * flux), single)
    # single precision, of the 120 terms and of the phasors that are stepped over 192 channels
    np.testing.assert_allclose(together, single, atol=1e-5 * np.abs(flux).sum())


@pytest.mark.parametrize(("longest_m", "high_hz", "small"), [(2500.0, 1.5e9, True), (7700.0, 2.6e9, False)])
def test_what_a_series_cannot_say_is_summed_point_by_point(observe, longest_m, high_hz, small):
    """On the array of DSA-110 the series holds; on one three times as long, over an octave, it would not."""
    dataset = observe([], n_times=2, n_channels=192)
    frequency = np.linspace(1.3e9, high_hz, 192)
    dataset = dataset.assign_coords(frequency=frequency).assign_attrs(channel_width=frequency[1] - frequency[0])
    uvw = dataset["UVW"].to_numpy()
    dataset["UVW"] = dataset["UVW"] * (longest_m / np.sqrt((uvw**2).sum(axis=-1).max()))
    data = from_dataset(dataset, 0.0, 0.0237)
    sky = ApparentSky(Gridder(data, data.weights, N, CELL, 1e-5, 2), GRID, 3)
    model = np.zeros((N, N), np.float32)
    model[Y, X], model[Y + 3, X - 3] = 0.6, 0.4
    seen = sky.predict(model, noise_jy=1e-6)
    sources = sky._sources
    assert are_small(sky._rows, sky._channels, in_clusters(sources.points, sources.flux_of)) is small
    plain = np.zeros_like(seen)
    gain = np.ascontiguousarray(sources.gain[..., sources.points.source] * sources.flux_of, np.float32)
    predict_points(sky._rows, sky._channels, sources.points, gain, plain)
    np.testing.assert_allclose(seen, plain, atol=1e-4)
