"""CLEAN of known skies, without beam or smearing."""

import numpy as np
import pytest

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.apparent import ApparentSky
from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.beam import airy_power, separation
from dsa110_contimg.science.deconvolution import COARSEST, clean, robust_rms
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.restoring import fit_beam, restore
from dsa110_contimg.science.weighting import imaging_weights, thermal_noise

N, CELL = 768, np.radians(8.0 / 3600)
OPTIONS = ImageOptions(n_pixels=N, cell_arcsec=8.0)
SIGMA = telescope.visibility_noise(16 * telescope.CHANNEL_WIDTH_HZ, telescope.INTEGRATION_S)


def gridder_of(dataset):
    data = from_dataset(dataset, 0.001, 0.0237)
    return Gridder(data, imaging_weights(data, N, CELL, "briggs", 0.5), N, CELL, 1e-4, 2)


def test_cleaning_leaves_the_thermal_noise(flat_sky, observe):
    g = gridder_of(observe([(0.004, -0.003, 0.8), (-0.006, 0.001, 0.3)], n_times=8, noise_jy=SIGMA))
    seen = []
    result = clean(g, g.psf(), OPTIONS, flat_sky(g), seen.append)
    assert result.cycles[-1].noise_jy == pytest.approx(thermal_noise(g.data, g.weights), rel=0.1)
    assert result.cycles[-1].noise_jy < 0.3 * result.cycles[0].noise_jy
    assert [c.number for c in seen] == list(range(1, len(seen) + 1))
    assert result.cycles[1:] == tuple(seen)


def test_the_model_has_the_flux_where_the_sources_are(flat_sky, observe):
    sources = [(-200 * CELL, 100 * CELL, 0.8), (120 * CELL, -60 * CELL, 0.3)]  # (x, y) = (584, 484), (264, 324)
    g = gridder_of(observe(sources, n_times=8, noise_jy=0.2 * SIGMA))
    model = clean(g, g.psf(), OPTIONS, flat_sky(g)).model
    for x, y, flux in ((584, 484, 0.8), (264, 324, 0.3)):
        assert model[y - 4 : y + 5, x - 4 : x + 5].sum() == pytest.approx(flux, rel=0.01)


def test_there_are_as_many_major_cycles_as_may_be(flat_sky, observe):
    g = gridder_of(observe([(0.004, -0.003, 0.8), (-0.006, 0.001, 0.3)]))
    psf = g.psf()
    found = [
        clean(g, psf, OPTIONS.model_copy(update={"max_major_cycles": n, "major_gain": 0.3}), flat_sky(g)).cycles
        for n in (1, 3)
    ]
    assert [cycles[-1].number for cycles in found] == [1, 3]
    # one that is the last is as deep as one that is not
    assert found[0][1].iterations == found[1][1].iterations
    # where it goes on, the residual is gridded to so much
    assert found[0][1].peak_jy == pytest.approx(found[1][1].peak_jy, rel=g.coarser(COARSEST))


def test_no_iterations_leave_the_dirty_image(flat_sky, observe):
    g = gridder_of(observe([(0.004, -0.003, 0.8)]))
    result = clean(g, g.psf(), OPTIONS.model_copy(update={"max_iterations": 0}), flat_sky(g))
    assert not result.model.any()
    np.testing.assert_allclose(result.residual, g.dirty(g.data.visibilities), atol=1e-6)


def test_divergence_is_an_error(flat_sky, observe):
    class WrongSky(flat_sky):
        """Predicts the negative of what the model says: every cycle makes the residual larger."""

        def predict(self, model, noise_jy):
            return -3 * super().predict(model, noise_jy)

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


@pytest.mark.parametrize(("n_sources", "error"), [(3, 2e-4), (3000, 1e-3)])
def test_faint_sources_are_predicted_as_they_stand_few_or_many(apparent, n_sources, error):
    """Many go through the gridder, ten times as coarsely as its accuracy of 1e-4: of what is below 20 sigma, 0.02."""
    model = np.zeros((N, N), np.float32)
    x, y = np.random.default_rng(1).integers(10, N - 10, (2, n_sources))
    model[y, x] = 1e-3
    expected = apparent._gridder.predict(model)
    np.testing.assert_allclose(apparent.predict(model, noise_jy=1.0), expected, atol=error * np.abs(expected).max())


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


SOURCES = [(-200 * CELL, 100 * CELL, 0.8), (120 * CELL, -60 * CELL, 0.3)]
"""At (x, y) = (584, 484) and (264, 324)."""


@pytest.fixture(scope="module")
def noisy(observe):
    g = gridder_of(observe(SOURCES, n_times=8, noise_jy=SIGMA))
    return g, g.psf()


def with_options(**changes):
    return ImageOptions.model_validate(OPTIONS.model_dump() | changes)


@pytest.mark.parametrize("deconvolver", ["clean", "hogbom"])
def test_clark_s_and_hogbom_s_way_find_the_flux_and_leave_the_noise(flat_sky, noisy, deconvolver):
    g, psf = noisy
    result = clean(g, psf, with_options(deconvolver=deconvolver), flat_sky(g))
    noise = thermal_noise(g.data, g.weights)
    restored = restore(result.model, result.residual, fit_beam(psf, CELL), CELL)
    for x, y, flux in ((584, 484, 0.8), (264, 324, 0.3)):
        assert restored[y, x] == pytest.approx(flux, abs=4 * noise)
    assert result.cycles[-1].noise_jy == pytest.approx(noise, rel=0.1)


def test_multiscale_makes_a_smooth_model_of_a_smooth_source(flat_sky, observe):
    y, x = np.indices((33, 33)) - 16
    disc = np.argwhere(np.hypot(x, y) <= 16) - 16
    sky = [(-dx * CELL, dy * CELL, 2.0 / len(disc)) for dy, dx in disc]
    g = gridder_of(observe(sky, n_times=4, n_channels=24, noise_jy=0.2 * SIGMA))
    psf, unevenness, total = g.psf(), {}, {}
    for deconvolver, scales in (("clean", ()), ("multiscale", (0.0, 80.0, 160.0))):
        model = clean(g, psf, with_options(deconvolver=deconvolver, scales_arcsec=scales), flat_sky(g)).model
        inner = model[N // 2 - 10 : N // 2 + 11, N // 2 - 10 : N // 2 + 11]
        total[deconvolver] = model.sum()
        unevenness[deconvolver] = inner.std() / inner.mean()
    # points stop where each is lost in the noise that is left, before scales do; not in that of the dirty image, which
    # a third of the flux was lost in
    assert 0.9 * 2.0 < total["clean"] < total["multiscale"]
    assert total["multiscale"] == pytest.approx(2.0, rel=0.05)
    assert unevenness["multiscale"] < 0.3 * unevenness["clean"]


@pytest.mark.parametrize("scheme", ["natural", "briggs"])
def test_the_noise_is_the_radiometer_s_with_natural_weights_too(flat_sky, observe, scheme):
    """With natural weights, the arms make ridges of a fifth of the peak that reach past what radler subtracts."""
    data = from_dataset(observe(SOURCES, n_antennas=32, n_times=8, noise_jy=SIGMA), 0.0, 0.0237)
    g = Gridder(data, imaging_weights(data, N, CELL, scheme, 0.5), N, CELL, 1e-4, 2)
    result = clean(g, g.psf(), OPTIONS, flat_sky(g))
    assert 0.95 < result.cycles[-1].noise_jy / thermal_noise(g.data, g.weights) < 1.10
    # two sources, and next to nothing made of noise
    assert np.count_nonzero(result.model) <= 6


def test_sources_below_the_threshold_come_back_unbiased(flat_sky, observe):
    """Over-cleaning would take noise and faint sources for sidelobes of each other, and lower both."""
    off = {"auto": [], "none": []}
    for seed in range(3):
        rng = np.random.default_rng(seed)
        data = from_dataset(observe([], n_antennas=32, n_times=8, noise_jy=SIGMA, seed=seed), 0.0, 0.0237)
        g = Gridder(data, imaging_weights(data, N, CELL, "briggs", 0.5), N, CELL, 1e-4, 2)
        noise, truth = thermal_noise(data, g.weights), np.zeros((N, N), np.float32)
        x, y = rng.integers(60, N - 60, (2, 60))
        np.add.at(truth, (y, x), rng.uniform(2, 4, 60) * noise)
        truth[484, 584] += 0.8
        data.visibilities[:] += g.predict(truth)
        psf = g.psf()
        beam = fit_beam(psf, CELL)
        expected = restore(truth, np.zeros_like(truth), beam, CELL)
        for mask, found in off.items():
            result = clean(g, psf, with_options(mask=mask), flat_sky(g))
            found += list((restore(result.model, result.residual, beam, CELL) - expected)[y, x] / noise)
    error = np.std(off["auto"]) / np.sqrt(len(off["auto"]))
    assert error < 0.12
    assert abs(np.mean(off["auto"])) < 3.5 * error
    # and the test can tell: what cleans anywhere is biased
    assert np.mean(off["none"]) < np.mean(off["auto"]) - 0.2


def test_components_stand_in_the_given_mask_alone(flat_sky, noisy):
    g, psf = noisy
    mask = np.zeros((N, N), bool)
    mask[480:489, 580:589] = True
    model = clean(g, psf, OPTIONS, flat_sky(g), mask=mask).model
    assert not model[~mask].any()
    # the sidelobes of the other source, which is never taken away, are part of what stands there
    assert model[mask].sum() == pytest.approx(0.8, rel=0.05)


def test_a_mask_that_holds_all_sources_lets_no_noise_in(flat_sky, noisy):
    g, psf = noisy
    mask = np.zeros((N, N), bool)
    for x, y in ((584, 484), (264, 324)):
        mask[y - 4 : y + 5, x - 4 : x + 5] = True
    masked = clean(g, psf, OPTIONS, flat_sky(g), mask=mask)
    anywhere = clean(g, psf, with_options(mask="none"), flat_sky(g))
    noise = thermal_noise(g.data, g.weights)
    assert masked.cycles[-1].noise_jy == pytest.approx(noise, rel=0.1)
    assert anywhere.cycles[-1].noise_jy < 0.95 * masked.cycles[-1].noise_jy


def test_one_hand_is_imaged_by_itself_with_its_noise(observe):
    sky = observe([(-200 * CELL, 100 * CELL, 0.8)], n_times=8, noise_jy=SIGMA)
    sky["VISIBILITY"][..., 1] *= 0.5
    gridders = {
        s: Gridder(d, d.weights, N, CELL, 1e-4, 2)
        for s in ("I", "XX", "YY")
        for d in [from_dataset(sky, 0, 0.02, stokes=s)]
    }
    peaks = {stokes: g.dirty(g.data.visibilities)[484, 584] for stokes, g in gridders.items()}
    noise = {stokes: thermal_noise(g.data, g.weights) for stokes, g in gridders.items()}
    for stokes, flux in (("I", 0.6), ("XX", 0.8), ("YY", 0.4)):
        assert peaks[stokes] == pytest.approx(flux, abs=4 * noise[stokes])
    assert peaks["I"] == pytest.approx((peaks["XX"] + peaks["YY"]) / 2, abs=1e-5)
    assert noise["XX"] == pytest.approx(noise["I"] * np.sqrt(2), rel=1e-5)
    with pytest.raises(ImagingError, match="not in the data"):
        from_dataset(sky, 0, 0.02, stokes="XY")


def test_visibilities_that_are_not_finite_are_an_error_before_anything_is_cleaned(flat_sky, observe):
    g = gridder_of(observe([(0.004, -0.003, 0.8)]))
    psf = g.psf()
    g.data.visibilities[g.weights == 0] = np.nan
    clean(g, psf, with_options(max_iterations=0), flat_sky(g))
    g.data.visibilities[g.weights.argmax()] = np.nan
    with pytest.raises(ImagingError, match="not finite"):
        clean(g, psf, OPTIONS, flat_sky(g))


def test_a_threshold_in_jansky_ends_it_where_it_is_higher(flat_sky, noisy):
    g, psf = noisy
    shallow = clean(g, psf, with_options(threshold_jy=0.4), flat_sky(g))
    # the fainter source, of 0.3 Jy, is left as it is
    assert not shallow.model[300:350, 240:290].any()
    assert 0.2 < shallow.cycles[-1].peak_jy < 0.45
    deep, same = clean(g, psf, OPTIONS, flat_sky(g)), clean(g, psf, with_options(threshold_jy=1e-6), flat_sky(g))
    assert same.cycles[-1].iterations == deep.cycles[-1].iterations
