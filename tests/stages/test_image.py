"""`image`: products, headers and numbers against an independent sky."""

import resource
from pathlib import Path

import astropy.units as u
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.time import Time
from astropy.wcs import WCS

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ImagingError, OutputError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.records import ImageProduct
from dsa110_contimg.stages.image import image

OPTIONS = ImageOptions(n_pixels=1080, cell_arcsec=12.0)
KINDS = ("path", "pbcor_path", "pb_path", "residual_path", "model_path", "psf_path", "smearing_path")


@pytest.fixture(scope="module")
def noisy(drifting_sky, field_catalog, tmp_path_factory):
    cycles = []
    record = image(
        drifting_sky(field_catalog, noise=1.0),
        OPTIONS,
        tmp_path_factory.mktemp("noisy"),
        flux_scale_error=0.02,
        progress=lambda done, total: cycles.append((done, total)),
    )
    return record, cycles


def plane(path):
    return fits.getdata(path)[0, 0]


def test_every_product_is_a_whole_fits_image_of_four_axes(noisy):
    record, _ = noisy
    for kind in KINDS:
        with fits.open(getattr(record, kind)) as hdus:
            hdus.verify("exception")
            assert hdus[0].data.shape == (1, 1, 1080, 1080)
            assert [hdus[0].header[f"CTYPE{i}"] for i in (1, 2, 3, 4)] == ["RA---SIN", "DEC--SIN", "FREQ", "STOKES"]
    names = {getattr(record, kind).name for kind in KINDS} | {f"{record.group_id}.noise.fits"}
    assert {p.name for p in record.path.parent.iterdir()} == names


def test_the_header_says_where_when_and_how(noisy):
    record, _ = noisy
    header = fits.getheader(record.path)
    assert (header["BUNIT"], header["RADESYS"], header["TIMESYS"]) == ("JY/BEAM", "ICRS", "UTC")
    assert header["TELESCOP"] == telescope.TELESCOPE_NAME
    assert header["OBJECT"] == record.group_id == "2026-01-26T04:45:25"
    start, end = Time(header["DATE-OBS"], scale="utc"), Time(header["DATE-END"], scale="utc")
    assert (end - start).sec == pytest.approx(telescope.GROUP_S, abs=0.01)
    assert start.mjd == pytest.approx(header["MJD-OBS"], abs=1e-8) == pytest.approx(record.mjd_start)
    assert header["OPTIONS"] == OPTIONS.digest()
    assert header["CRVAL3"] == record.frequency_hz == pytest.approx(1.404e9, abs=5e6)
    assert header["BMAJ"] == record.bmaj_deg
    assert 40 < record.bmin_deg * 3600 < record.bmaj_deg * 3600 < 120
    assert OPTIONS.model_dump_json() in "".join(header["HISTORY"])


def test_the_pixels_are_the_true_sky_aberration_included(noisy):
    record, _ = noisy
    header = fits.getheader(record.path)
    assert header["CDELT2"] * 3600 / 12.0 == pytest.approx(header["VAFACTOR"], rel=1e-9)
    assert 1e-6 < abs(header["VAFACTOR"] - 1) < 1.1e-4
    assert record.cell_arcsec == pytest.approx(header["CDELT2"] * 3600)


def test_the_noise_is_thermal_although_the_beam_drifts_over_sources_of_janskys(noisy):
    record, _ = noisy
    assert record.noise_jy == pytest.approx(record.thermal_noise_jy, rel=0.1)
    natural = telescope.radiometer_noise(32, 96 * 8 * telescope.CHANNEL_WIDTH_HZ, telescope.GROUP_S)
    assert natural < record.thermal_noise_jy < 1.6 * natural


def test_progress_counts_major_cycles(noisy):
    _, cycles = noisy
    assert [done for done, _ in cycles] == list(range(1, len(cycles) + 1))
    assert {total for _, total in cycles} == {OPTIONS.max_major_cycles}


def test_the_beam_corrected_image_is_the_image_over_the_beam(noisy):
    record, _ = noisy
    restored, pb, pbcor = plane(record.path), plane(record.pb_path), plane(record.pbcor_path)
    np.testing.assert_allclose((pbcor * pb)[pb >= 0.1], restored[pb >= 0.1], atol=1e-5)
    assert np.isnan(pbcor[pb < 0.0999]).all()
    assert np.isfinite(pbcor[pb > 0.1001]).all()


def test_bright_sources_shine_at_their_places_with_their_flux(noisy, field_catalog):
    record, _ = noisy
    header = fits.getheader(record.pbcor_path)
    wcs, corrected, smearing = WCS(header).celestial, plane(record.pbcor_path), plane(record.smearing_path)
    for row in field_catalog[:2].itertuples():
        x, y = wcs.world_to_pixel(SkyCoord(row.ra_deg * u.deg, row.dec_deg * u.deg))
        box = corrected[round(float(y)) - 2 : round(float(y)) + 3, round(float(x)) - 2 : round(float(x)) + 3]
        # the highest pixel of a source between pixels: up to 4 % below its peak with four pixels across the beam
        ratio = box.max() / smearing[round(float(y)), round(float(x))] / row.flux_jy
        assert 0.94 < ratio < 1.01


def test_maps_of_beam_and_smearing_peak_where_the_telescope_looked(noisy):
    record, _ = noisy
    pb, smearing = plane(record.pb_path), plane(record.smearing_path)
    assert np.hypot(*(np.array(np.unravel_index(pb.argmax(), pb.shape)) - 540)) < 4
    assert pb.max() == pytest.approx(0.955, abs=0.01)
    assert smearing[540, 540] > 0.999 > smearing[0, 0] > 0.9


def test_the_record_survives_json_and_its_files_exist(noisy):
    record, _ = noisy
    assert ImageProduct.from_json(record.to_json()) == record
    assert all(isinstance(getattr(record, kind), Path) and getattr(record, kind).is_file() for kind in KINDS)
    assert record.flux_scale_error == 0.02


def test_a_dirty_image_is_made_without_iterations(drifting_sky, field_catalog, tmp_path):
    sky = drifting_sky(field_catalog[:1], n_antennas=8)
    record = image(sky, OPTIONS.model_copy(update={"max_iterations": 0, "n_pixels": 512}), tmp_path)
    np.testing.assert_allclose(plane(record.path), plane(record.residual_path), atol=1e-6)
    assert not plane(record.model_path).any()
    assert fits.getheader(record.path)["NMAJOR"] == 0


def test_spectral_windows_are_imaged_together(drifting_sky, field_catalog, tmp_path):
    sky = drifting_sky(field_catalog[:2], noise=0.2, n_antennas=12)
    halves = [sky.isel(frequency=slice(0, 48)), sky.isel(frequency=slice(48, 96))]
    options = OPTIONS.model_copy(update={"max_iterations": 0, "n_pixels": 512, "averaging_loss": 0.0})
    one, two = image(sky, options, tmp_path / "one"), image(halves, options, tmp_path / "two")
    np.testing.assert_allclose(plane(one.path), plane(two.path), atol=2e-4)
    np.testing.assert_allclose(plane(one.pb_path), plane(two.pb_path), atol=2e-4)


def test_a_missing_subband_only_costs_noise(drifting_sky, field_catalog, tmp_path):
    sky = drifting_sky(field_catalog[2:4], noise=1.0, n_antennas=20)
    options = OPTIONS.model_copy(update={"n_pixels": 512, "cell_arcsec": 25.0, "weighting": "natural"})
    whole = image(sky, options, tmp_path / "whole")
    sky["FLAG"][:, :, 30:36] = True
    sky["VISIBILITY"][:, :, 30:36] = 0
    part = image(sky, options, tmp_path / "part")
    assert part.thermal_noise_jy / whole.thermal_noise_jy == pytest.approx(np.sqrt(96 / 90), rel=0.01)
    assert part.noise_jy / part.thermal_noise_jy == pytest.approx(1.0, rel=0.15)


def test_what_cannot_be_imaged_or_written_is_an_error_and_leaves_nothing(drifting_sky, field_catalog, tmp_path):
    sky = drifting_sky(field_catalog[:1], n_antennas=12)
    small = ImageOptions(n_pixels=128, cell_arcsec=12.0, max_iterations=0)
    with pytest.raises(ImagingError, match="even"):
        image(sky, small.model_copy(update={"n_pixels": 129}), tmp_path / "odd")
    with pytest.raises(ImagingError, match=r"main lobe|No visibility"):
        image(sky, small.model_copy(update={"cell_arcsec": 4000.0}), tmp_path / "coarse")
    (tmp_path / "file").write_text("not a directory")
    with pytest.raises(OutputError):
        image(sky, small, tmp_path / "file")
    sky["FLAG"][:] = True
    with pytest.raises(ImagingError, match="flagged"):
        image(sky, small, tmp_path / "flagged")
    assert not list(tmp_path.glob("*/*.fits"))


@pytest.mark.parametrize(("terms", "estimate"), [(1, r"551\.\d GB"), (2, r"842\.\d GB")])
def test_tclean_is_refused_by_the_memory_of_its_wider_images(drifting_sky, field_catalog, tmp_path, terms, estimate):
    sky = drifting_sky(field_catalog[:1], n_antennas=8)
    huge = ImageOptions(n_pixels=40_000, cell_arcsec=1.0, imager="tclean", spectral_terms=terms)
    with pytest.raises(ImagingError, match=f"{estimate} by estimate"):
        image(sky, huge, tmp_path)
    assert not list(tmp_path.iterdir())


def test_where_there_is_no_room_nothing_half_written_is_left(drifting_sky, field_catalog, tmp_path):
    """The kernel refuses to let any file grow beyond 40 kB: a plane has 64."""
    sky = drifting_sky(field_catalog[:1], n_antennas=12)
    small = ImageOptions(n_pixels=128, cell_arcsec=12.0, max_iterations=0)
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, usual[1]))
    try:
        with pytest.raises(OutputError, match="cannot be written"):
            image(sky, small, tmp_path / "full")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    assert not any((tmp_path / "full").iterdir())
    assert image(sky, small, tmp_path / "full").path.is_file()
