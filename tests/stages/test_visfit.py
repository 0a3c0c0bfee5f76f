"""Fluxes fitted in visibilities: true to theory on an independent sky, and as image photometry has them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from dsa110_contimg import accessor, telescope
from dsa110_contimg.exceptions import InputError, MeasurementError
from dsa110_contimg.options import ImageOptions, MeasureOptions
from dsa110_contimg.science.averaging import from_dataset
from dsa110_contimg.science.beam import half_power_radius
from dsa110_contimg.science.visfit import fit_fluxes
from dsa110_contimg.stages.image import image
from dsa110_contimg.stages.measure import measure


@pytest.fixture(scope="module")
def noisy(drifting_sky, field_catalog):
    return drifting_sky(field_catalog, noise=1.0)


@pytest.fixture(scope="module")
def fitted(noisy, field_catalog):
    return fit_fluxes(noisy, field_catalog)


def test_without_noise_the_fluxes_are_the_true_ones(drifting_sky, field_catalog):
    sky = drifting_sky(field_catalog)
    found = fit_fluxes(sky, field_catalog)
    np.testing.assert_allclose(found.table["flux_jy"], field_catalog["flux_jy"], rtol=1e-4)
    # unaveraged, what is left is the beam between bins of 1 MHz: 4e-4 of an apparent Jansky, in noise of 0.7 Jy, and
    # the sums' rounding; averaging adds spectra and beam within a channel, as much again at this budget
    unaveraged = fit_fluxes(sky, field_catalog, averaging_loss=0.0)
    assert 0 < unaveraged.chi_square < 2e-6
    assert unaveraged.chi_square < found.chi_square < 5e-6


def test_with_noise_they_scatter_by_their_errors(fitted, field_catalog):
    pull = (fitted.table["flux_jy"] - field_catalog["flux_jy"]) / fitted.table["flux_error_jy"]
    assert np.abs(pull).max() < 4
    # chi-square of 12 values is below 3 and above 0.25 with 0.1 % each
    assert 0.25 < np.mean(pull**2) < 3
    # 2 x 1.1e6 parts: the reduced chi-square scatters by 1e-3
    assert fitted.chi_square == pytest.approx(1.0, abs=5e-3)


def test_the_error_of_a_lone_source_is_the_radiometer_equation(noisy, field_catalog):
    found = fit_fluxes(noisy, field_catalog.iloc[:1], others=field_catalog.iloc[1:]).table.iloc[0]
    seconds, hertz = 24 * telescope.INTEGRATION_S, 96 * float(noisy.attrs["channel_width"])
    thermal = 6500.0 / (0.9 * np.sqrt(2 * 32 * 31 * hertz * seconds))
    assert found["flux_error_jy"] == pytest.approx(thermal / found["beam_response"], rel=5e-3)
    assert abs(found["flux_jy"] - field_catalog["flux_jy"].iloc[0]) < 4 * found["flux_error_jy"]


def test_it_is_unbiased_below_the_noise(drifting_sky, field_catalog):
    """Forty positions of nothing: mean 0, scatter as told."""
    rng = np.random.default_rng(3)
    empty = pd.DataFrame({"ra_deg": 80.3 + rng.uniform(-0.8, 0.8, 40), "dec_deg": 16.6 + rng.uniform(-0.8, 0.8, 40)})
    found = fit_fluxes(drifting_sky(field_catalog, noise=1.0, seed=4), empty, others=field_catalog)
    whitened = np.linalg.solve(np.linalg.cholesky(found.covariance), found.table["flux_jy"])
    assert abs(whitened.mean()) < 4 / np.sqrt(40)
    assert np.mean(whitened**2) == pytest.approx(1.0, abs=4 * np.sqrt(2 / 40))


def test_image_photometry_agrees_within_errors(noisy, fitted, field_catalog, tmp_path):
    record = image(noisy, ImageOptions(n_pixels=1080, cell_arcsec=12.0), tmp_path, known=field_catalog)
    path = measure(record, field_catalog, MeasureOptions(min_flux_jy=1e-6), tmp_path).path
    other = Table.read(path, format="ascii.ecsv").to_pandas().set_index("source")
    ours = fitted.table.set_index("name").loc[other.index]
    # the same noise in both, weighted differently: they differ by less than the image's error
    sigma = np.hypot(other["flux_error_jy"], 2e-3 * other["flux_jy"])
    assert (np.abs(ours["flux_jy"] - other["flux_jy"]) / sigma).max() < 4
    assert (ours["flux_error_jy"] < 1.02 * other["flux_error_jy"]).all()


def test_averaged_further_the_fluxes_stay(noisy, fitted, field_catalog):
    """What averaging loses is in the model: a tenth of a peak at half power costs noise alone."""
    data = from_dataset(noisy, 0.03, half_power_radius(float(noisy["frequency"].mean())))
    coarse = fit_fluxes(data, field_catalog)
    assert len(data.weights) < 0.6 * len(from_dataset(noisy, 0.003, 0.02).weights)
    apart = (coarse.table["flux_jy"] - fitted.table["flux_jy"]) / fitted.table["flux_error_jy"]
    assert np.abs(apart).max() < 2


def test_neighbours_are_told_apart_and_their_errors_are_correlated(drifting_sky, field_catalog):
    pair = field_catalog.iloc[[0, 0]].reset_index(drop=True)
    pair["flux_jy"], pair["dec_deg"] = [1.0, 0.3], pair["dec_deg"] + [0.0, 40 / 3600]
    found = fit_fluxes(drifting_sky(pair, noise=1.0), pair)
    assert (np.abs(found.table["flux_jy"] - pair["flux_jy"]) < 4 * found.table["flux_error_jy"]).all()
    assert (found.table["correlation"] < -0.2).all()


def test_flagged_data_do_not_count(noisy, fitted, field_catalog):
    spoilt = noisy.copy(deep=True)
    spoilt["VISIBILITY"][:, :, 10] = 1e3
    spoilt["FLAG"][:, :, 10] = True
    found = fit_fluxes(spoilt, field_catalog)
    apart = (found.table["flux_jy"] - fitted.table["flux_jy"]) / fitted.table["flux_error_jy"]
    assert np.abs(apart).max() < 1


def test_the_same_position_twice_shares_its_flux(drifting_sky, field_catalog):
    twice = field_catalog.iloc[[1, 1]]
    found = fit_fluxes(drifting_sky(field_catalog.iloc[[1]]), twice)
    assert found.table["flux_jy"].sum() == pytest.approx(field_catalog["flux_jy"].iloc[1], rel=1e-3)


def test_positions_out_of_the_beam_are_not_fitted(noisy, field_catalog):
    far = pd.concat([field_catalog, field_catalog.iloc[:1].assign(dec_deg=30.0)], ignore_index=True)
    found = fit_fluxes(noisy, far)
    assert np.isnan(found.table["flux_jy"].iloc[-1]) and np.isfinite(found.table["flux_jy"].iloc[:-1]).all()
    with pytest.raises(MeasurementError, match="sees none"):
        fit_fluxes(noisy, far.iloc[-1:])


def test_a_dataset_offers_it(noisy, fitted, field_catalog):
    assert isinstance(noisy.dsa, accessor.Dsa)
    found = noisy.dsa.fit_fluxes(field_catalog.iloc[:3], others=field_catalog.iloc[3:])
    same = fit_fluxes(noisy, field_catalog.iloc[:3], others=field_catalog.iloc[3:])
    pd.testing.assert_frame_equal(found.table, same.table)


def test_what_cannot_be_asked_is_refused(noisy, field_catalog):
    for wrong in (field_catalog.iloc[:0], pd.concat([field_catalog] * 50), field_catalog.drop(columns="ra_deg")):
        with pytest.raises(InputError):
            fit_fluxes(noisy, wrong)
    with pytest.raises(InputError, match="not finite"):
        fit_fluxes(noisy, field_catalog.assign(ra_deg=np.nan))


def test_data_of_another_telescope_have_errors_from_the_data(noisy, fitted, field_catalog):
    data = from_dataset(noisy, 0.003, 0.02)
    found = fit_fluxes(replace(data, unit_variance=float("nan")), field_catalog)
    assert np.isnan(found.chi_square)
    np.testing.assert_allclose(found.table["flux_error_jy"], fitted.table["flux_error_jy"], rtol=0.02)
