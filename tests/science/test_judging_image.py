"""Every fault of an image moves the figure that is there for it, and no other says the same."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from dsa110_contimg.io.bounds import image_bounds
from dsa110_contimg.science import judging_image
from dsa110_contimg.science.judging_image import ImagePlanes, expected_beam, flux_figures, judge_image, noise_by_annulus
from dsa110_contimg.science.restoring import Beam

ARCSEC = math.radians(1 / 3600)
N, NOISE = 600, 0.4e-3
BEAM = Beam(44 * ARCSEC, 20 * ARCSEC, math.radians(90))
CELL = 6 * ARCSEC
DEC = math.radians(16.6)


def beam_shape(x, y):
    """The beam about a pixel of the image (x west, y north)."""
    yy, xx = np.mgrid[:N, :N]
    return BEAM.value(-(xx - x) * CELL, (yy - y) * CELL)


@pytest.fixture(scope="module")
def good() -> ImagePlanes:
    """White noise and three sources, cleaned."""
    residual = np.random.default_rng(5).normal(0, NOISE, (N, N)).astype(np.float32)
    restored = residual + sum(s * beam_shape(x, y) for x, y, s in ((300, 310, 0.3), (120, 400, 0.08), (450, 90, 0.05)))
    expected = expected_beam("briggs", 0.5, DEC, 1.4e9)
    return ImagePlanes(restored.astype(np.float32), residual, BEAM, CELL, NOISE / 1.02, expected)


@pytest.fixture(scope="module")
def fluxes() -> pd.DataFrame:
    rng = np.random.default_rng(6)
    n = 15
    return pd.DataFrame(
        {
            "flux_raw_jy": rng.uniform(0.02, 0.3, n),
            "local_noise_jy": NOISE,
            "beam_response": rng.uniform(0.55, 0.95, n),
            "quality": 0,
            "ratio": rng.normal(1.0, 0.02, n),
            "offset_ra_arcsec": rng.normal(0, 0.3, n),
            "offset_dec_arcsec": rng.normal(0, 0.3, n),
        }
    )


def wrong(planes, photometry=None, flagged=0.06):
    verdict = judge_image(planes, image_bounds(), photometry=photometry, flagged_fraction=flagged)
    return {figure.name: figure.level for figure in verdict.figures if figure.level != "good"}


def test_a_good_image_is_good(good, fluxes):
    verdict = judge_image(good, image_bounds(), photometry=fluxes, flagged_fraction=0.06)
    assert verdict.level == "good", verdict
    assert {figure.name for figure in verdict.figures} == set(image_bounds().image)
    assert not verdict.failed()


@pytest.mark.parametrize("factor", [1.1, 0.9])
def test_a_scale_wrong_by_a_tenth_is_the_flux_ratio(good, fluxes, factor):
    assert set(wrong(good, fluxes.assign(ratio=fluxes["ratio"] * factor))) == {"median_flux_ratio"}


def test_a_shift_of_20_arcsec_is_the_offset(good, fluxes):
    moved = fluxes.assign(offset_ra_arcsec=fluxes["offset_ra_arcsec"] + 20.0)
    assert wrong(good, moved) == {"astrometric_offset_beams": "bad"}


def test_a_hole_is_the_negatives(good, fluxes):
    holed = replace(good, restored=(good.restored - 15 * NOISE * beam_shape(200, 200)).astype(np.float32))
    assert wrong(holed, fluxes) == {"deepest_negative_sigma": "bad", "negative_holes": "suspect"}


def test_a_source_left_in_the_residual_is_its_peak(good, fluxes):
    left = (20 * NOISE * beam_shape(200, 200)).astype(np.float32)
    assert wrong(replace(good, residual=good.residual + left, restored=good.restored + left), fluxes) == {
        "peak_residual_sigma": "bad"
    }


def test_a_lost_arm_is_the_axis_ratio(good, fluxes):
    long = replace(good, beam=Beam(BEAM.major * 1.7, BEAM.minor / 1.7, BEAM.angle))
    assert wrong(long, fluxes) == {"beam_axis_ratio": "bad"}


def test_lost_outriggers_are_the_size(good, fluxes):
    assert wrong(replace(good, beam=Beam(80 * ARCSEC, 70 * ARCSEC, 0.0)), fluxes) == {"beam_size_ratio": "bad"}


def test_noise_everywhere_is_the_noise(good, fluxes):
    assert wrong(replace(good, thermal_noise_jy=NOISE / 2.5), fluxes) == {"noise_over_thermal": "bad"}


def test_noise_in_the_middle_is_the_annulus(good, fluxes):
    offset = np.hypot(*(np.mgrid[:N, :N] - N // 2)) < N / 2 / judging_image.N_ANNULI
    stronger = np.where(offset, 1.8 * good.residual, good.residual)
    found = wrong(replace(good, residual=stronger), fluxes)
    assert found["noise_worst_annulus"] == "suspect"
    assert "noise_over_thermal" not in found


def test_sidelobes_of_the_brightest_source_are_seen_next_to_it(good, fluxes):
    y, x = np.mgrid[:N, :N]
    near = np.hypot(x - 300, y - 310) < 60
    ripple = np.where(near, 2.5 * NOISE * np.sin(x / 3.0), 0.0).astype(np.float32)
    assert "noise_near_brightest" in wrong(replace(good, residual=good.residual + ripple), fluxes)


def test_an_image_without_sources_is_bad(good, fluxes):
    assert wrong(replace(good, restored=good.residual), fluxes) == {"dynamic_range": "bad"}


def test_flagged_data_are_told(good, fluxes):
    assert wrong(good, fluxes, flagged=0.6) == {"flagged_fraction": "bad"}


def test_what_cannot_be_known_is_not_good(good, fluxes):
    assert wrong(replace(good, thermal_noise_jy=math.nan), fluxes) == {"noise_over_thermal": "unknown"}
    faint = fluxes.assign(flux_raw_jy=NOISE)
    assert wrong(good, faint) == {"median_flux_ratio": "unknown", "astrometric_offset_beams": "unknown"}


def test_the_size_of_the_beam_is_not_asked_of_other_weights(good, fluxes):
    assert "beam_size_ratio" not in judging_image.image_figures(replace(good, expected_beam_rad=None))
    assert wrong(replace(good, expected_beam_rad=None), fluxes) == {}


def test_confused_and_outlying_sources_do_not_tell(fluxes):
    figures = flux_figures(fluxes, BEAM)
    more = fluxes.assign(ratio=3.0)
    both = pd.concat([fluxes, more.assign(quality=2), more.assign(beam_response=0.4)], ignore_index=True)
    assert flux_figures(both, BEAM) == pytest.approx(figures)


def test_noise_by_annulus_is_the_noise_to_its_sampling_error(good):
    rings = noise_by_annulus(good.residual)
    # robust rms of n values scatters by 1.17 / sqrt(2 n); the smallest annulus has pi (N / 12)^2
    assert rings == pytest.approx(np.full(judging_image.N_ANNULI + 1, NOISE), rel=5 * 1.17 / np.sqrt(2 * np.pi) / 50)


def test_the_expected_beam_is_the_measured_one_and_grows_to_the_south_and_the_north():
    at = [math.sqrt(74 * 66), math.sqrt(44 * 20), math.sqrt(29 * 14)]
    found = [
        expected_beam(*scheme, DEC, 1.4e9) / ARCSEC for scheme in (("natural", 0), ("briggs", 0.5), ("uniform", 0))
    ]
    assert found == pytest.approx(at, rel=0.005)
    overhead = math.radians(37.23)
    assert expected_beam("briggs", 0.5, overhead, 1.4e9) < expected_beam("briggs", 0.5, DEC, 1.4e9)
    assert expected_beam("briggs", 0.5, DEC, 0.7e9) == pytest.approx(2 * found[1] * ARCSEC, rel=1e-6)
    assert expected_beam("radial", 0.0, DEC, 1.4e9) is None
    assert expected_beam("uniform", 0.0, math.radians(-60), 1.4e9) is None


def test_every_bound_is_dated_and_has_its_reason():
    bounds = image_bounds()
    assert bounds.date.year >= 2026
    assert all(len(bound.why) > 40 for bound in bounds.image.values())
