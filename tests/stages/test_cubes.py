"""`image_cubes`: spectra and time series of an independent sky."""

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from astropy.wcs import WCS
from scipy.special import j1

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.records import CubeProduct
from dsa110_contimg.science.coordinates import uvw_frame
from dsa110_contimg.science.faraway import FAR_SOURCES
from dsa110_contimg.stages.cubes import image_cubes

LIGHT = 299_792_458.0
OPTIONS = ImageOptions(n_pixels=400, cell_arcsec=12.0, subbands=4, per_integration=True)


@pytest.fixture(scope="module")
def source(field_catalog):
    """One source 0.4 deg out, of 3 Jy and a steep spectrum; another far beyond the image's edge."""
    catalog = field_catalog[:2].copy()
    catalog["ra_deg"] = 80.3 + np.array([0.35, 1.6])
    catalog["dec_deg"] = 16.6 + np.array([-0.25, 1.1])
    catalog["flux_jy"], catalog["spectral_index"] = [3.0, 2.0], [-1.0, -0.7]
    return catalog


@pytest.fixture(scope="module")
def made(drifting_sky, source, tmp_path_factory):
    sky = drifting_sky(source, noise=0.3, n_antennas=14)
    sky["FLAG"][5] = True
    sky["FLAG"][:, :, 24:48] = True
    # a flare of the first source in one integration
    sky["VISIBILITY"][17] *= 1.5
    return image_cubes(sky, OPTIONS, tmp_path_factory.mktemp("cubes"), known=source[1:])


def fluxes(record, source):
    """Beam-corrected peak of every plane at the source's place (Jy)."""
    header, cube, pb = fits.getheader(record.path), fits.getdata(record.path), fits.getdata(record.pb_path)
    place = SkyCoord(source["ra_deg"].iloc[0] * u.deg, source["dec_deg"].iloc[0] * u.deg)
    x, y = (round(float(v)) for v in WCS(header).celestial.world_to_pixel(place))
    planes, beams = cube.reshape(-1, 400, 400), pb.reshape(-1, 400, 400)
    return planes[:, y - 1 : y + 2, x - 1 : x + 2].max(axis=(1, 2)) / beams[:, y, x]


def test_a_cube_over_frequency_shows_the_spectrum(made, source):
    record = made[0]
    assert record.kind == "subbands"
    assert fits.getdata(record.path).shape == (1, 4, 400, 400)
    flux, frequency = fluxes(record, source), np.array(record.frequency_hz)
    assert np.isnan(flux).tolist() == [False, True, False, False]
    # the flare is in one of 23 integrations
    expected = 3.0 * (frequency / 1.4e9) ** -1.0 * (22 + 1.5) / 23
    # the highest pixel of a peak between pixels, smeared by the integration and channels of 2 MHz
    ratio = (flux / expected)[[0, 2, 3]]
    assert (np.abs(ratio - 0.99) < 0.02).all()
    slope = np.polyfit(np.log(frequency[[0, 2, 3]]), np.log(flux[[0, 2, 3]]), 1)[0]
    assert slope == pytest.approx(-1.0, abs=0.15)


def test_a_cube_over_time_shows_the_flare_and_not_the_drift(made, source):
    record = made[1]
    assert record.kind == "integrations"
    flux = fluxes(record, source)
    assert np.isnan(flux[5])
    quiet = np.delete(flux, [5, 17])
    assert flux[17] / np.median(quiet) == pytest.approx(1.5, abs=0.05)
    assert quiet.std() / quiet.mean() < 0.03
    noise, thermal = np.array(record.noise_jy), np.array(record.thermal_noise_jy)
    assert np.isnan(noise).tolist() == np.isnan(thermal).tolist() == [k == 5 for k in range(24)]


def test_headers_say_which_plane_is_what(made):
    spectrum, series = made
    header = fits.getheader(spectrum.path)
    wcs = WCS(header)
    middle = wcs.wcs_pix2world([[200, 200, k, 0] for k in range(4)], 0)[:, 2]
    assert np.all(np.abs(middle[[0, 2, 3]] - np.array(spectrum.frequency_hz)[[0, 2, 3]]) < 5e6)
    header = fits.getheader(series.path)
    assert (header["CTYPE5"], header["NAXIS5"], header["CUNIT5"]) == ("TIME", 24, "s")
    seconds = header["CRVAL5"] + header["CDELT5"] * np.arange(24)
    np.testing.assert_allclose(header["MJD-OBS"] + seconds / 86400, series.mjd, atol=1e-8)
    beams = Table.read(series.path, hdu="BEAMS")
    assert len(beams) == 24
    assert (np.delete(np.array(beams["BMAJ"]), 5) > 30).all()
    np.testing.assert_allclose(beams["MJD"], series.mjd)
    assert CubeProduct.from_json(spectrum.to_json()).path == spectrum.path


def test_no_cube_is_made_that_was_not_asked_for(drifting_sky, source, tmp_path):
    sky = drifting_sky(source[:1], n_antennas=8)
    assert image_cubes(sky, OPTIONS.model_copy(update={"subbands": 0, "per_integration": False}), tmp_path) == ()
    (only,) = image_cubes(
        sky, OPTIONS.model_copy(update={"subbands": 2, "per_integration": False, "max_iterations": 0}), tmp_path
    )
    assert {p.name for p in tmp_path.iterdir()} == {only.path.name, only.pb_path.name}


def test_a_cube_of_tclean_is_refused_by_the_memory_of_its_wider_images(drifting_sky, source, tmp_path):
    sky = drifting_sky(source, n_antennas=4)
    huge = ImageOptions(n_pixels=40_000, cell_arcsec=1.0, imager="tclean", weighting="natural", subbands=1)
    with pytest.raises(ImagingError, match=r"570\.\d GB by estimate"):
        image_cubes(sky, huge, tmp_path)


def test_cubes_of_an_earlier_run_go_with_the_image_that_they_were_made_with(drifting_sky, source, tmp_path):
    sky = drifting_sky(source[:1], n_antennas=8)
    stale = [tmp_path / f"{sky.attrs['group_id']}.integrations{pb}.fits" for pb in ("", ".pb")]
    others = [tmp_path / "2026-01-26T05:00:00.integrations.fits", tmp_path / f"{sky.attrs['group_id']}.image.fits"]
    for path in (*stale, *others):
        path.touch()
    one = OPTIONS.model_copy(update={"subbands": 2, "per_integration": False, "max_iterations": 0})
    (made,) = image_cubes(sky, one, tmp_path)
    assert set(tmp_path.iterdir()) == {made.path, made.pb_path, *others}
    assert image_cubes(sky, one.model_copy(update={"subbands": 0}), tmp_path) == ()
    assert set(tmp_path.iterdir()) == set(others)


def test_far_sources_are_in_no_plane(drifting_sky, source, tmp_path):
    """20 Jy of Cassiopeia A, 65 deg away, in noise: each plane has that of the radiometer, as an image has."""
    sky = drifting_sky(source[:0], noise=0.3, n_antennas=18, reach_m=150.0)
    # an hour and more from Taurus A, beside which short baselines cannot tell what is far from what is not
    sky = sky.assign_coords(pointing_ra=sky["pointing_ra"] + 1.0)
    sky.attrs["phase_center_ra"] += 1.0
    uvw, frequency, centre = (sky[name].to_numpy() for name in ("UVW", "frequency", "pointing_ra"))
    ra, dec = sky.attrs["phase_center_ra"], sky.attrs["phase_center_dec"]
    (cas_a,) = (far for far in FAR_SOURCES if far.name == "Cassiopeia A")
    mjd = float(sky["time"].mean())
    there = uvw_frame(ra, dec, mjd).axes[0] @ cas_a.apparent(mjd) - [0.0, 0.0, 1.0]
    # what the correlator follows is the meridian
    tracked = np.stack([np.cos(dec) * (centre - ra), 0 * centre, 0 * centre], axis=-1)
    offset = there - tracked
    rate = 2 * np.pi / 86164.0905 * np.einsum("tbi,ti->tb", np.cross([0.0, np.cos(dec), np.sin(dec)], uvw), offset)
    left = np.sinc(rate[..., None] * frequency / LIGHT * sky.attrs["integration_time"])
    left *= np.sinc(np.einsum("tbi,ti->tb", uvw, offset) * sky.attrs["channel_width"] / LIGHT)[..., None]
    along = uvw @ there + uvw[..., 2]
    across = np.sqrt((uvw**2).sum(axis=-1) - along**2)
    disk = np.pi * np.radians(4.5 / 60) * across[..., None] * frequency / LIGHT
    left *= 2 * j1(disk) / disk
    seen = 20.0 * left * np.exp(2j * np.pi * (uvw @ there)[..., None] * frequency / LIGHT)
    sky["VISIBILITY"] = sky["VISIBILITY"] + seen[..., None].astype(np.complex64)
    options = ImageOptions(n_pixels=128, cell_arcsec=60.0, subbands=2, max_iterations=0)
    (made,) = image_cubes(sky, options, tmp_path / "without")
    (kept,) = image_cubes(sky, options.model_copy(update={"far_sigma": None}), tmp_path / "with")
    assert min(kept.noise_jy) > 5 * max(made.noise_jy)
    np.testing.assert_allclose(made.noise_jy, 0.3 * np.array(made.thermal_noise_jy), rtol=0.1)
    assert "Cassiopeia A: " in str(fits.getheader(made.path)["HISTORY"])


def test_a_cube_larger_than_memory_is_refused_before_a_plane_is_made(drifting_sky, source, tmp_path):
    sky = drifting_sky(source[:1], n_antennas=8)
    with pytest.raises(ImagingError, match="GB by estimate"):
        image_cubes(sky, OPTIONS.model_copy(update={"memory_gb": 0.38}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("imager", ["wsclean", "tclean"])
def test_other_imagers_make_the_same_cubes(drifting_sky, source, imager, tmp_path):
    """One of the integrations, and half of the band, are flagged; tclean, slower, is asked for one plane alone."""
    n_times, subbands = {"wsclean": (3, 2), "tclean": (2, 0)}[imager]
    sky = drifting_sky(source, noise=0.3, n_antennas=28).isel(time=slice(10, 10 + n_times)).copy(deep=True)
    sky["FLAG"][1] = True
    sky["FLAG"][:, :, :48] = True
    options = OPTIONS.model_copy(update={"imager": imager, "subbands": subbands, "mask": "catalog"})
    work = tmp_path / "work"
    pairs = [
        image_cubes(sky, options.model_copy(update={"imager": name}), tmp_path / name, known=source[1:], work_dir=work)
        for name in (imager, "native")
    ]
    for made, native in zip(*pairs, strict=True):
        assert fits.getheader(made.path)["IMAGER"] == imager
        assert (made.kind, made.frequency_hz, made.mjd) == (native.kind, native.frequency_hz, native.mjd)
        assert fits.getdata(made.path).shape == fits.getdata(native.path).shape
        np.testing.assert_array_equal(fits.getdata(made.pb_path), fits.getdata(native.pb_path))
        # 3 Jy of which 4 sigma are 1 %
        np.testing.assert_allclose(fluxes(made, source), fluxes(native, source), rtol=0.01)
        np.testing.assert_allclose(made.noise_jy, native.noise_jy, rtol=0.3)
    assert list(work.iterdir()) == []
