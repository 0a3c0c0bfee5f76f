"""The beam from simulated photometry: what went in comes out, within its own errors."""

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from scipy.special import j1

from dsa110_contimg.exceptions import MeasurementError
from dsa110_contimg.science.beam import AIRY
from dsa110_contimg.science.beamfit import FitLimits, fit_beam
from dsa110_contimg.science.response import Response

LIGHT = 299_792_458.0
FREQUENCY = np.linspace(1.32e9, 1.49e9, 8)


def power(theta, frequency, width):
    x = np.pi * 4.65 / width * np.sin(theta) * frequency / LIGHT
    return np.where(x < 1e-6, 1.0, (2 * j1(np.maximum(x, 1e-6)) / np.maximum(x, 1e-6)) ** 2)


def night(width, scale=1.0, outliers=0.0, seed=1):
    """Two hours of drift at Dec 16: sources of 0.1 to 3 Jy, catalogue errors 5 %, noise 1 mJy, gains 1 %."""
    rng = np.random.default_rng(seed)
    n, n_groups = 700, 20
    ra, dec = rng.uniform(76.0, 116.0, n), rng.uniform(13.5, 18.5, n)
    flux = 10 ** rng.uniform(-1, 0.5, n)
    listed = flux * (1 + 0.05 * rng.normal(size=n))
    listed[rng.random(n) < outliers] *= 2.0
    index = rng.normal(-0.7, 0.3, n)
    where = SkyCoord(ra, dec, unit="deg")
    rows, responses = [], {}
    for g in range(n_groups):
        pointing = 80.0 + 1.29 * (g + (np.arange(12) - 5.5) / 12)
        weights = np.outer(np.ones(12), rng.uniform(0.5, 1.0, 8))
        name = f"group {g}"
        responses[name] = Response(np.radians(pointing), np.full(12, np.radians(16.0)), FREQUENCY, weights, AIRY)
        theta = where[:, None].separation(SkyCoord(pointing, np.full(12, 16.0), unit="deg")).rad
        seen = power(theta[..., None], FREQUENCY, width) * (FREQUENCY / 1.4e9) ** index[:, None, None]
        response = (seen * weights).sum(axis=(1, 2)) / weights.sum()
        smearing = rng.uniform(0.98, 1.0, n)
        raw = scale * flux * response * smearing * (1 + 0.01 * rng.normal(size=n)) + 1e-3 * rng.normal(size=n)
        rows += [
            (f"S{s}", name, ra[s], dec[s], raw[s], smearing[s], 1e-3, listed[s], 0.02 * listed[s], index[s])
            for s in np.flatnonzero(theta.max(axis=1) < np.radians(2.4))
        ]
    columns = (
        "source", "group", "ra_deg", "dec_deg", "flux_raw_jy", "smearing", "local_noise_jy", "catalog_flux_jy",
        "catalog_error_jy", "spectral_index",
    )  # fmt: skip
    return pd.DataFrame(rows, columns=columns), responses


@pytest.mark.parametrize(("width", "scale", "outliers"), [(1.05, 1.0, 0.0), (1.0, 1.07, 0.0), (0.96, 1.0, 0.02)])
def test_a_beam_of_another_width_comes_out_within_its_errors(width, scale, outliers):
    fit = fit_beam(*night(width, scale, outliers))
    truth = power(np.radians(fit.angle_deg), 1.4e9, width)
    pull = (fit.power - truth)[1:] / fit.error[1:]
    assert np.sqrt(np.mean(pull**2)) < 2.0
    assert np.abs(pull).max() < 4.0
    # small enough to tell 5 % of width, which is up to 3 % of the peak, from none
    assert fit.error[fit.angle_deg < 1.5].max() < 0.01
    assert fit.power[0] == 1.0
    assert fit.scale == pytest.approx(scale, abs=0.02)
    assert 0.7 < fit.chi_square < 1.3
    if width != 1.0:
        airy = power(np.radians(fit.angle_deg), 1.4e9, 1.0)
        assert np.abs((airy - fit.power)[1:] / fit.error[1:]).max() > 5


def test_errors_are_those_of_repeated_nights():
    pulls = []
    for seed in range(3):
        fit = fit_beam(*night(1.05, seed=seed))
        truth = power(np.radians(fit.angle_deg), 1.4e9, 1.05)
        pulls.append((fit.power - truth)[[14, 26, 38]] / fit.error[[14, 26, 38]])
    # 9 numbers, of which those of one night are correlated
    assert 0.3 < np.sqrt(np.mean(np.square(pulls))) < 2.0


def test_the_profile_is_positive_where_noise_is_all():
    table, responses = night(1.0)
    table["flux_raw_jy"] += np.random.default_rng(3).normal(size=len(table)) * 0.3
    fit = fit_beam(table.assign(local_noise_jy=0.3), responses, FitLimits(least_snr=0.5))
    assert (fit.power >= 0).all()
    assert fit.error[-1] > 0.01


def test_fluxes_that_are_not_there_make_no_beam():
    table, responses = night(1.0)
    with pytest.raises(MeasurementError, match="no flux on axis"):
        fit_beam(table.assign(flux_raw_jy=-table["flux_raw_jy"]), responses)


def test_too_little_says_how_much_is_needed():
    table, responses = night(1.0)
    with pytest.raises(MeasurementError, match="at least 40"):
        fit_beam(table.iloc[:30], responses)
    with pytest.raises(MeasurementError, match="out to"):
        fit_beam(table, responses, FitLimits(last_deg=4.5))
    with pytest.raises(MeasurementError, match="lacks columns"):
        fit_beam(table.drop(columns="smearing"), responses)
