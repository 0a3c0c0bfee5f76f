"""Spectral terms: flux and spectral index of a sky whose truth is known, through a beam that narrows with frequency."""

import astropy.units as u
import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from dsa110_contimg.io.fits import open_image
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.beam import AIRY
from dsa110_contimg.science.response import Response
from dsa110_contimg.stages.image import image

N, CELL = 480, 12.0
OPTIONS = ImageOptions(n_pixels=N, cell_arcsec=CELL, deconvolver="mtmfs", far_sigma=None)
INDEX = np.array([-0.7, 0.5, -2.0, -0.7])


@pytest.fixture(scope="module")
def sources():
    """In the centre and out to where the beam is 0.8, with spectra that fall, rise and fall steeply.

    Each is on a pixel, so that what pixels do to a source is not taken for what its spectrum does.
    """
    scale = 1.00009  # apparent to true angles at this date and place: 0.02 pixels at the most
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crval = ["RA---SIN", "DEC--SIN"], [80.3, 16.6]
    wcs.wcs.crpix, wcs.wcs.cdelt = [1, 1], [-CELL * scale / 3600, CELL * scale / 3600]
    ra, dec = wcs.wcs_pix2world([-20, -120, 150, 60], [12, 140, -130, 170], 0)
    columns = {"name": list("abcd"), "ra_deg": ra, "dec_deg": dec, "flux_jy": [1.0, 2.0, 2.0, 1.5]}
    zero = {"flux_error_jy": 0.0, "spectral_index_error": 0.0, "origin": "test"}
    return pd.DataFrame({**columns, "spectral_index": INDEX, **zero})


def companion(record, kind):
    return np.squeeze(fits.getdata(record.path.with_name(record.path.name.replace(".image.", f".{kind}."))))


def measured(record, sources):
    """Flux at the mean frequency (Jy) over the truth, spectral index and its error, at the sources' places.

    A flux is the peak over what smearing leaves and the response for the index that was measured.
    """
    header, table = fits.getheader(record.path), fits.getdata(record.pb_path, "RESPONSE")
    columns = [np.asarray(table[name], float) for name in ("POINTING_RA", "POINTING_DEC", "FREQUENCY", "WEIGHT")]
    response = Response(np.radians(columns[0]), np.radians(columns[1]), columns[2][0], columns[3], AIRY)
    ra, dec = (sources[name].to_numpy() for name in ("ra_deg", "dec_deg"))
    x, y = WCS(header).celestial.world_to_pixel(SkyCoord(ra * u.deg, dec * u.deg))
    at = np.round(y).astype(int), np.round(x).astype(int)
    alpha, error = companion(record, "alpha")[at], companion(record, "alpha_error")[at]
    peak = companion(record, "image")[at] / companion(record, "smearing")[at]
    flux = peak / response.at(np.radians(ra), np.radians(dec), alpha, record.frequency_hz)
    truth = sources["flux_jy"].to_numpy() * (record.frequency_hz / 1.4e9) ** INDEX
    return flux / truth, alpha, error


@pytest.fixture(scope="module")
def quiet(drifting_sky, sources, tmp_path_factory):
    sky = drifting_sky(sources, noise=0.01, n_antennas=28).isel(time=slice(0, 24, 4))
    return image(sky, OPTIONS, tmp_path_factory.mktemp("quiet"))


def test_without_noise_flux_and_index_are_true_although_the_beam_drifts(quiet, sources):
    flux, alpha, error = measured(quiet, sources)
    np.testing.assert_allclose(flux, 1.0, atol=5e-3)
    # 0.01 is what a line through a power law, and smearing that grows with frequency, may cost (science.spectral)
    assert (np.abs(alpha - INDEX) < 0.01 + 4 * error).all()
    assert (error < 0.005).all()


def test_the_index_is_of_the_sky_and_not_of_what_the_beam_leaves_of_it(quiet, sources):
    """The beam's own index is -0.4 where it is 0.82: without correction that would stand in the product."""
    _, alpha, _ = measured(quiet, sources)
    beam = companion(quiet, "pb")
    assert beam.min() > 0.5
    own = 2 * np.log(beam)[N // 2 + 140, N // 2 - 120]  # of a Gaussian of this response
    assert own < -0.35
    assert abs(alpha[1] - 0.5) < 0.05 * abs(own)


def test_the_index_is_a_product_with_units_and_blank_where_it_is_not_known(quiet):
    view = open_image(quiet.path)
    assert view["SPECTRAL_INDEX"].shape == view["SKY"].shape
    alpha, error = companion(quiet, "alpha"), companion(quiet, "alpha_error")
    assert np.isnan(alpha).mean() > 0.9
    assert np.array_equal(np.isnan(alpha), np.isnan(error))
    assert np.nanmax(error) <= OPTIONS.index_max_error
    assert fits.getheader(quiet.path)["NTERMS"] == 2


def test_an_image_of_flat_spectra_takes_the_index_of_the_one_before_away(drifting_sky, sources, tmp_path):
    sky = drifting_sky(sources[:1], n_antennas=10).isel(time=slice(0, 2))
    plain = OPTIONS.model_copy(update={"max_iterations": 0, "n_pixels": 256})
    kinds = []
    for terms in (2, 1):
        image(sky, plain.model_copy(update={"spectral_terms": terms}), tmp_path)
        kinds.append({path.name.split(".")[-2] for path in tmp_path.iterdir()})
    assert kinds[0] - kinds[1] == {"alpha", "alpha_error"}


@pytest.fixture(scope="module")
def noisy(drifting_sky, sources, tmp_path_factory):
    """Two integrations by three imagers: the sky has no time to drift, which the native one alone knows of."""
    sky, place = drifting_sky(sources, noise=1.0, n_antennas=32).isel(time=slice(11, 13)), tmp_path_factory.mktemp("n")
    imagers = ("native", "wsclean", "tclean")
    return {name: image(sky, OPTIONS.model_copy(update={"imager": name}), place / name) for name in imagers}


@pytest.mark.parametrize("imager", ["native", "wsclean", "tclean"])
def test_with_noise_fluxes_and_indices_are_true_to_their_errors(noisy, sources, imager):
    record = noisy[imager]
    flux, alpha, error = measured(record, sources)
    assert (np.abs(alpha - INDEX) < 4.0 * error).all()
    sigma = record.noise_jy / (sources["flux_jy"] * 0.7).to_numpy()
    assert (np.abs(flux - 1.0) < np.maximum(0.01, 4.0 * sigma)).all()
    # sigma_alpha = sigma / (S rms(x)), x = f / f0 - 1: 0.0385 where 187.5 MHz are weighted evenly
    apparent = companion(record, "image").max()
    assert error.min() == pytest.approx(record.noise_jy / apparent / 0.0385, rel=0.25)


def test_imagers_agree_on_the_index_of_the_same_data(noisy, sources):
    """Closer than the noise, which they share: what differs is which of it they clean."""
    (_, one, error), (_, other, _) = (measured(noisy[name], sources) for name in ("native", "wsclean"))
    assert (np.abs(one - other) < error).all()


def test_sources_that_were_subtracted_keep_their_spectra(drifting_sky, sources, tmp_path):
    """A catalogue with one index for all and wrong fluxes: what it leaves is cleaned, and both make the truth."""
    wrong = sources.assign(flux_jy=sources["flux_jy"] * [1.03, 0.97, 1.03, 0.97], spectral_index=-0.7)
    sky = drifting_sky(sources, noise=0.2, n_antennas=28).isel(time=slice(0, 24, 4))
    flux, alpha, error = measured(image(sky, OPTIONS, tmp_path, known=wrong), sources)
    np.testing.assert_allclose(flux, 1.0, atol=5e-3)
    assert (np.abs(alpha - INDEX) < 0.01 + 4.0 * error).all()
