"""CLEAN of known skies, without beam or smearing."""

import numpy as np
import pytest

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.apparent import ApparentSky
from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.beam import airy_power, separation
from dsa110_contimg.science.deconvolution import clean, robust_rms
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.weighting import imaging_weights, thermal_noise

N, CELL = 768, np.radians(8.0 / 3600)
OPTIONS = ImageOptions(n_pixels=N, cell_arcsec=8.0)
SIGMA = telescope.visibility_noise(16 * telescope.CHANNEL_WIDTH_HZ, telescope.INTEGRATION_S)


class FlatSky:
    """Sources that are the same in every visibility, as `observe` makes them."""

    def __init__(self, gridder):
        self.gridder = gridder

    def predict(self, model, noise_jy):  # noqa: ARG002  (the signature of ApparentSky)
        return self.gridder.predict(model)

    def learn(self, residual, noise_jy):
        pass


def gridder_of(dataset):
    data = from_dataset(dataset, 0.001, 0.0237)
    return Gridder(data, imaging_weights(data, N, CELL, "briggs", 0.5), N, CELL, 1e-4, 2)


def test_cleaning_leaves_the_thermal_noise(observe):
    g = gridder_of(observe([(0.004, -0.003, 0.8), (-0.006, 0.001, 0.3)], n_times=8, noise_jy=SIGMA))
    seen = []
    result = clean(g, g.psf(), OPTIONS, FlatSky(g), seen.append)
    assert result.cycles[-1].noise_jy == pytest.approx(thermal_noise(g.data, g.weights), rel=0.1)
    assert result.cycles[-1].noise_jy < 0.3 * result.cycles[0].noise_jy
    assert [c.number for c in seen] == list(range(1, len(seen) + 1))
    assert result.cycles[1:] == tuple(seen)


def test_the_model_has_the_flux_where_the_sources_are(observe):
    sources = [(-200 * CELL, 100 * CELL, 0.8), (120 * CELL, -60 * CELL, 0.3)]  # (x, y) = (584, 484), (264, 324)
    g = gridder_of(observe(sources, n_times=8, noise_jy=0.2 * SIGMA))
    model = clean(g, g.psf(), OPTIONS, FlatSky(g)).model
    for x, y, flux in ((584, 484, 0.8), (264, 324, 0.3)):
        assert model[y - 4 : y + 5, x - 4 : x + 5].sum() == pytest.approx(flux, rel=0.01)


def test_no_iterations_leave_the_dirty_image(observe):
    g = gridder_of(observe([(0.004, -0.003, 0.8)]))
    result = clean(g, g.psf(), OPTIONS.model_copy(update={"max_iterations": 0}), FlatSky(g))
    assert not result.model.any()
    np.testing.assert_allclose(result.residual, g.dirty(g.data.visibilities), atol=1e-6)


class WrongSky(FlatSky):
    """Predicts the negative of what the model says: every cycle makes the residual larger."""

    def predict(self, model, noise_jy):
        return -3 * super().predict(model, noise_jy)


def test_divergence_is_an_error(observe):
    g = gridder_of(observe([(0.004, -0.003, 0.8)]))
    with pytest.raises(ImagingError, match="diverged in major cycle 1"):
        clean(g, g.psf(), OPTIONS, WrongSky(g))


def test_robust_rms_is_the_standard_deviation_of_noise_and_ignores_sources():
    values = np.random.default_rng(2).normal(3.0, 0.5, 100_000)
    values[:1000] += 100
    values[1000] = np.nan
    assert robust_rms(values) == pytest.approx(0.5, rel=0.02)


@pytest.fixture(scope="module")
def apparent(observe):
    g = gridder_of(observe([], n_channels=96, n_times=24))
    return ApparentSky(g, SkyGrid(N, CELL, 1.4, np.radians(16.6)), 3)


@pytest.mark.parametrize("n_sources", [3, 3000])
def test_faint_sources_are_predicted_as_they_stand_few_or_many(apparent, n_sources):
    model = np.zeros((N, N), np.float32)
    x, y = np.random.default_rng(1).integers(10, N - 10, (2, n_sources))
    model[y, x] = 1e-3
    expected = apparent._gridder.predict(model)
    np.testing.assert_allclose(apparent.predict(model, noise_jy=1.0), expected, atol=2e-4 * np.abs(expected).max())


def test_a_bright_source_is_predicted_with_its_mean_as_the_model_has_it(apparent):
    model = np.zeros((N, N), np.float32)
    model[200:202, 300] = 0.7, 0.3
    g = apparent._gridder
    plain, seen = g.predict(model), apparent.predict(model, noise_jy=1e-3)
    # in the image, it stands where it stood with the flux it had ...
    assert g.dirty(seen)[200, 300] == pytest.approx(g.dirty(plain)[200, 300], rel=3e-3)
    # ... though it brightens while the beam drifts towards it
    amplitude, time = np.abs(seen), np.repeat(g.data.time_index, np.diff(g.data.offsets))
    ra, dec = SkyGrid(N, CELL, 1.4, np.radians(16.6)).sky(300, 200.3)
    beam = airy_power(separation(ra, dec, g.data.track.pointing_ra, g.data.track.pointing_dec), 1.405e9)
    faded = np.median(amplitude[time == 0]) / np.median(amplitude[time == 23])
    assert faded == pytest.approx(beam[0] / beam[23], rel=0.01)
    assert faded < 0.9
