"""The beam of an image, against a telescope that is simulated integration by integration and channel by channel.

Truth comes from `drifting_sky`, which has astropy's angles and the textbook's Airy formula and nothing of ours.
"""

import numpy as np
import pandas as pd
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy.special import j1

from dsa110_contimg.options import ImageOptions, MeasureOptions
from dsa110_contimg.science.response import noise_map
from dsa110_contimg.stages.image import image
from dsa110_contimg.stages.measure import measure

LIGHT = 299_792_458.0
OPTIONS = ImageOptions(n_pixels=1200, cell_arcsec=12.0, max_iterations=0, weighting="natural", averaging_loss=0.0)


def brute_force(dataset, place):
    """Mean of the Airy pattern over every integration and channel; natural weights of unflagged data are all equal."""
    pointing = SkyCoord(dataset["pointing_ra"].to_numpy() * u.rad, dataset["pointing_dec"].to_numpy() * u.rad)
    theta = place[:, None].separation(pointing).rad[..., None]
    x = np.pi * 4.65 * np.sin(theta) * dataset["frequency"].to_numpy() / LIGHT
    power = (2 * j1(x) / x) ** 2
    weights = (~dataset["FLAG"].to_numpy()).sum(axis=(1, 3))
    return (power * weights).sum(axis=(1, 2)) / weights.sum()


def catalog(offsets):
    """Sources of 1 Jy at offsets (deg) east and north of the centre."""
    east, north = np.array(offsets).T
    centre = SkyCoord(80.3 * u.deg, 16.6 * u.deg)
    there = centre.spherical_offsets_by(east * u.deg, north * u.deg)
    return pd.DataFrame(
        {
            "name": [f"S{k}" for k in range(len(east))], "ra_deg": there.ra.deg, "dec_deg": there.dec.deg,
            "flux_jy": 1.0, "flux_error_jy": 0.0, "spectral_index": 0.0, "spectral_index_error": 0.0, "origin": "test",
        }
    )  # fmt: skip


# on axis, to half power along and across the drift, and to a tenth
OFFSETS = [(0.0, 0.0), (0.7, 0.3), (1.25, 0.0), (0.0, -1.35), (-1.0, 0.9), (-1.9, 0.2), (-1.55, 1.6)]


@pytest.fixture(scope="module")
def alone(drifting_sky, tmp_path_factory):
    """An image of the source on axis, a fifth of it flagged so that weights differ over time and band."""
    sky = drifting_sky(catalog(OFFSETS[:1]), n_antennas=16)
    sky["FLAG"][3:7] = True
    sky["FLAG"][:, :, 60:80] = True
    return sky, image(sky, OPTIONS, tmp_path_factory.mktemp("alone"))


def test_the_beam_map_is_the_mean_over_integrations_and_channels(alone):
    sky, record = alone
    pb = fits.getdata(record.pb_path)[0, 0]
    y, x = np.meshgrid(np.arange(30, 1200, 90), np.arange(30, 1200, 90), indexing="ij")
    place = WCS(fits.getheader(record.pb_path)).celestial.pixel_to_world(x.ravel(), y.ravel())
    expected = brute_force(sky, place)
    inside = expected > 0.1
    assert inside.sum() > 100
    np.testing.assert_allclose(pb[y.ravel(), x.ravel()][inside], expected[inside], rtol=2e-3)


@pytest.mark.parametrize("offset", OFFSETS)
def test_a_source_has_its_flux_after_beam_and_smearing(drifting_sky, tmp_path, offset):
    """One source at a time, so that no other's sidelobe is in it."""
    sources = catalog([offset])
    record = image(drifting_sky(sources, n_antennas=16), OPTIONS, tmp_path)
    options = MeasureOptions(min_flux_jy=0.1, min_beam=0.05)
    table = Table.read(measure(record, sources, options, tmp_path).path, format="ascii.ecsv").to_pandas()
    assert table["ratio"].iloc[0] == pytest.approx(1.0, abs=2e-3)


def test_the_image_is_blank_and_the_noise_unknown_below_a_tenth_of_the_beam(alone):
    _, record = alone
    pb, pbcor = (fits.getdata(path)[0, 0] for path in (record.pb_path, record.pbcor_path))
    np.testing.assert_array_equal(np.isnan(pbcor), pb < 0.1)
    noise = noise_map(0.5e-3, pb, 0.1)
    np.testing.assert_array_equal(np.isnan(noise), np.isnan(pbcor))
    assert np.nanmin(noise) == pytest.approx(0.5e-3 / pb.max(), rel=1e-5)
    assert 4.9e-3 < np.nanmax(noise) <= 5.0e-3
    varying = noise_map(np.linspace(1, 2, pb.size).reshape(pb.shape).astype(np.float32), pb, 0.1)
    assert varying[600, 600] == pytest.approx(1.5 / pb[600, 600], rel=1e-2)
