"""Forced photometry on images whose sources are known."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dsa110_contimg.science import interpolation, photometry
from dsa110_contimg.science.photometry import (
    Pixels,
    Planes,
    Quality,
    fit_offsets,
    forced_peaks,
    interpolate,
    local_noise,
    sample,
)
from dsa110_contimg.science.restoring import Beam, restore

N, CELL = 256, np.radians(6.0 / 3600)
BEAM = Beam(np.radians(44 / 3600), np.radians(20 / 3600), np.radians(95))
REACH = 4 * 44 / 6
NONE_KNOWN = (np.zeros(0), np.zeros(0), np.zeros(0))


def spread(x0, y0):
    y, x = np.mgrid[:N, :N]
    return BEAM.value(-(x - x0) * CELL, (y - y0) * CELL)


def planes(x, y, flux, noise=0.0, seed=0, cleaned=0.0):
    """Sources of which a part was cleaned (to whole pixels), the rest left; the point spread function is the beam."""
    model = np.zeros((N, N), np.float32)
    residual = np.zeros((N, N))
    for x0, y0, s in zip(x, y, flux, strict=True):
        residual += s * spread(x0, y0)
        if cleaned:
            model[round(y0), round(x0)] += cleaned * s
            residual -= cleaned * s * spread(round(x0), round(y0))
    rng = np.random.default_rng(seed)
    white = np.fft.rfft2(rng.normal(size=(N, N))) * np.sqrt(
        np.abs(np.fft.rfft2(np.fft.ifftshift(spread(N // 2, N // 2))))
    )
    correlated = np.fft.irfft2(white, s=(N, N))
    residual += noise * correlated / correlated.std()
    psf = spread(N // 2, N // 2).astype(np.float32)
    made = Planes(residual.astype(np.float32), model, psf, NONE_KNOWN)
    return Pixels(restore(model, made.residual, BEAM, CELL), CELL, BEAM), made


@settings(max_examples=40, deadline=None)
@given(st.floats(40, 200), st.floats(40, 200))
def test_the_peak_of_a_beam_between_pixels_is_found_to_two_parts_in_ten_thousand(x, y):
    image = spread(x, y).astype(np.float32)
    assert interpolate(image, np.array([x]), np.array([y]))[0] == pytest.approx(1.0, abs=2e-4)


@given(st.floats(-0.38, 0.38), st.floats(-0.38, 0.38), st.floats(0, 6.28))
def test_waves_within_the_band_are_interpolated(u, v, phase):
    y, x = np.mgrid[:80, :80]
    image = np.cos(2 * np.pi * (u * x + v * y) + phase).astype(np.float32)
    at = np.array([41.37]), np.array([38.81])
    expected = np.cos(2 * np.pi * (u * at[0] + v * at[1]) + phase)
    assert interpolate(image, *at) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("cleaned", [0.0, 0.6, 1.3])
def test_a_flux_does_not_depend_on_how_deep_the_source_was_cleaned(cleaned):
    x, y, flux = np.array([100.37, 180.5]), np.array([90.8, 60.2]), np.array([1.0, 0.05])
    peaks = forced_peaks(*planes(x, y, flux, cleaned=cleaned), x, y, REACH)
    np.testing.assert_allclose(peaks.flux, flux, rtol=1e-3)
    np.testing.assert_allclose(peaks.error_factor, 1.0, rtol=1e-3)


def test_sources_that_were_subtracted_count_with_what_is_left_of_them():
    x, y, flux = np.array([100.37, 180.5]), np.array([90.8, 60.2]), np.array([1.0, 0.05])
    pixels, left = planes(x, y, flux - [0.9, 0.06])
    subtracted = Planes(left.residual, left.model, left.psf, (x, y, np.array([0.9, 0.06])))
    np.testing.assert_allclose(forced_peaks(pixels, subtracted, x, y, REACH).flux, flux, rtol=1e-3)


@pytest.mark.parametrize("cleaned", [0.0, 0.8])
def test_neighbours_are_told_apart(cleaned):
    x, y, flux = np.array([100.3, 104.1]), np.array([90.2, 92.9]), np.array([1.0, 0.3])
    peaks = forced_peaks(*planes(x, y, flux, cleaned=cleaned), x, y, REACH)
    np.testing.assert_allclose(peaks.flux, flux, rtol=5e-3)
    assert (peaks.neighbour > 0.1).all()
    assert (peaks.error_factor > 1.0).all()


def test_far_sources_do_not_weigh_on_each_other():
    x, y = np.array([60.0, 200.0]), np.array([60.0, 200.0])
    peaks = forced_peaks(*planes(x, y, np.array([5.0, 0.01])), x, y, REACH)
    assert peaks.flux[1] == pytest.approx(0.01, rel=1e-3)
    assert peaks.neighbour[1] == 0.0


def test_the_same_position_twice_shares_the_flux():
    x, y = np.array([100.0, 100.0]), np.array([90.0, 90.0])
    peaks = forced_peaks(*planes(x[:1], y[:1], np.array([1.0])), x, y, REACH)
    np.testing.assert_allclose(peaks.flux, 0.5, rtol=1e-3)


def test_fluxes_below_the_noise_are_unbiased_and_their_errors_true():
    """200 positions without a source and with one of half a sigma, alone and in pairs one beam apart."""
    noise, truth = 1e-3, 5e-4
    chi, pulls = [], []
    for seed in range(8):
        gx, gy = np.meshgrid(np.arange(30, 230, 50), np.arange(30, 230, 40))
        x = np.concatenate([gx.ravel(), gx.ravel() + 6.0]) + 0.3
        y = np.concatenate([gy.ravel(), gy.ravel() + 1.0])
        flux = np.full(len(x), truth)
        peaks = forced_peaks(*planes(x, y, flux, noise, seed), x, y, REACH)
        pulls.append(peaks.flux - truth)
        chi.append((peaks.flux - truth) / (noise * peaks.error_factor))
    chi, pulls = np.concatenate(chi), np.concatenate(pulls)
    assert abs(pulls.mean()) < 4 * pulls.std() / np.sqrt(len(pulls))
    # the noise of an image that is a few hundred beams large is itself known to 4 %
    assert chi.std() == pytest.approx(1.0, abs=4 / np.sqrt(2 * len(chi)) + 0.04)


def test_local_noise_follows_the_image_and_not_its_sources():
    rng = np.random.default_rng(1)
    residual = rng.normal(0, 1e-3, (N, N)).astype(np.float32)
    residual[:, N // 2 :] *= 3
    residual[60, 60] = 5.0
    noise = local_noise(residual, np.array([60.0, 200.0, 0.0]), np.array([60.0, 128.0, 255.0]), 30)
    np.testing.assert_allclose(noise, [1e-3, 3e-3, 1e-3], rtol=0.1)


@pytest.mark.parametrize(("east", "north"), [(0.0, 0.0), (4.0, -7.0), (-9.0, 2.0)])
def test_positions_are_fitted_east_and_north(east, north):
    x, y, flux = np.array([120.3, 126.9]), np.array([100.6, 104.0]), np.array([1.0, 0.5])
    moved = x.copy(), y.copy()
    moved[0][0] -= east / 6.0  # x runs west
    moved[1][0] += north / 6.0
    pixels, _ = planes(*moved, flux, cleaned=1.0)
    got = fit_offsets(pixels, x, y, flux, np.array([True, False]))
    assert np.degrees(got[0][0]) * 3600 == pytest.approx(east, abs=0.2)
    assert np.degrees(got[1][0]) * 3600 == pytest.approx(north, abs=0.2)
    assert np.isnan(got[0][1])


def test_no_position_is_claimed_where_there_is_no_source():
    pixels, _ = planes(np.array([60.0]), np.array([60.0]), np.array([1.0]))
    x, y = np.array([200.0, 2.0]), np.array([200.0, 2.0])
    east, north = fit_offsets(pixels, x, y, np.array([0.5, 0.5]), np.array([True, True]))
    assert np.isnan(east[1])
    assert np.isnan(north[1])


def test_a_smooth_map_is_read_between_pixels():
    y, x = np.mgrid[:N, :N]
    plane = (1 - 1e-6 * ((x - 128) ** 2 + (y - 128) ** 2)).astype(np.float32)
    assert sample(plane, np.array([200.4]), np.array([40.7]))[0] == pytest.approx(
        1 - 1e-6 * (72.4**2 + 87.3**2), abs=2e-6
    )


def test_quality_bits_are_apart():
    assert len({bit.value for bit in Quality}) == len(Quality)
    assert all(bit.value & (bit.value - 1) == 0 for bit in Quality)


def test_every_bit_of_interpolated_gains_has_one_of_the_fluxes() -> None:
    bits = (interpolation.EXTRAPOLATED, interpolation.BEYOND_VALIDITY, interpolation.DRIFT_ASSUMED)
    meant = [photometry.of_calibration(bit) for bit in bits]
    assert [int(bit) for bit in meant] == [64, 128, 256], "bits in tables on disk are never renumbered"
    assert photometry.of_calibration(sum(bits)) == photometry.OF_CALIBRATION
    assert photometry.of_calibration(0) == 0
    assert (photometry.Quality.FAINT | meant[1]).in_words() == "faint, gains old"
    assert photometry.Quality(0).in_words() == ""


def test_the_sources_of_a_field_say_how_far_off_an_assumed_scale_is(rng) -> None:
    """Scales drawn from the prediction: the error quoted is theirs on average, whatever the sources can tell."""
    for noise, n_sources in ((0.01, 20), (0.05, 20), (0.3, 8)):
        squares, quoted = [], []
        for _ in range(2000):
            off = rng.normal(0, 0.02)
            squares.append(off**2)
            quoted.append(photometry.scale_error(0.02, (1 + off) * (1 + rng.normal(0, noise, n_sources))) ** 2)
        assert np.mean(squares) == pytest.approx(np.mean(quoted), rel=0.15)
    assert photometry.scale_error(0.02, np.full(4, 1.3)) == 0.02, "too few to ask"
    assert photometry.scale_error(0.02, np.append(np.ones(9), np.nan)) == 0.0
    assert np.isnan(photometry.scale_error(float("nan"), np.ones(9)))
    flare = np.append(1 + rng.normal(0, 0.01, 19), 3.0)
    assert photometry.scale_error(0.02, flare) < 0.01, "one source that flares is not the scale"
