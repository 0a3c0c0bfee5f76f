"""FITS images: headers that others can read, files that are whole."""

import numpy as np
import pytest
from astropy.io import fits as astropy_fits
from astropy.table import Table
from astropy.wcs import WCS

from dsa110_contimg.exceptions import CorruptFileError, OutputError
from dsa110_contimg.io import fits

HEADER = fits.ImageHeader(
    n_pixels=64,
    cell_deg=6.0 / 3600,
    ra_deg=80.3,
    dec_deg=16.6,
    frequency_hz=1.405e9,
    bandwidth_hz=187.5e6,
    beam_deg=(44 / 3600, 20 / 3600, 95.0),
    mjd_start=61066.1,
    mjd_end=61066.1 + 309.2 / 86400,
    vafactor=1.00005,
    telescope="DSA_110",
    provenance=(("OBJECT", "2026-01-26T02:24:00", "group"),),
    history=("a line " + "x" * 200,),
)


@pytest.fixture
def plane():
    out = np.zeros((64, 64), np.float32)
    out[40, 20] = 1.5
    return out


def test_pixels_and_header_come_back(tmp_path, plane):
    path = tmp_path / "a.image.fits"
    fits.write_image(path, plane, HEADER, "JY/BEAM")
    back = fits.read_plane(path)
    assert back.dtype.isnative
    np.testing.assert_array_equal(back, plane)
    with astropy_fits.open(path) as hdus:
        hdus.verify("exception")
    assert fits.read_header(path)["BPA"] == 95.0


def test_astropy_reads_the_world_coordinates(tmp_path, plane):
    path = tmp_path / "a.image.fits"
    fits.write_image(path, plane, HEADER, "JY/BEAM")
    wcs = WCS(fits.read_header(path))
    assert wcs.wcs.radesys == "ICRS"
    ra, dec, frequency, stokes = wcs.wcs_pix2world([[32, 32, 0, 0]], 0)[0]
    assert (ra, dec) == pytest.approx((80.3, 16.6), abs=1e-12)
    assert (frequency, stokes) == (1.405e9, 1.0)
    east, north = wcs.celestial.wcs_pix2world([[20, 40]], 0)[0] - [80.3, 16.6]
    assert east * np.cos(np.radians(16.6)) * 3600 == pytest.approx(12 * 6, rel=1e-3)
    assert north * 3600 == pytest.approx(8 * 6, rel=1e-3)


def test_tables_travel_with_the_image(tmp_path, plane):
    path = tmp_path / "a.pb.fits"
    table = Table({"WEIGHT": np.arange(6.0).reshape(2, 3), "RA": [1.0, 2.0]}, units={"RA": "deg"})
    fits.write_image(path, plane, HEADER, "", {"RESPONSE": table})
    back = fits.read_table(path, "RESPONSE")
    np.testing.assert_array_equal(back["WEIGHT"], table["WEIGHT"])
    assert back["RA"].unit == "deg"
    with pytest.raises(CorruptFileError, match="lacks a table"):
        fits.read_table(path, "OTHER")


def test_an_image_opens_as_a_view_with_its_companions(tmp_path, plane):
    for kind, unit in (("image", "JY/BEAM"), ("pb", ""), ("residual", "JY/BEAM")):
        fits.write_image(tmp_path / f"g.{kind}.fits", plane, HEADER, unit)
    view = fits.open_image(tmp_path / "g.image.fits")
    assert set(view.data_vars) == {"SKY", "PRIMARY_BEAM", "RESIDUAL"}
    assert view["SKY"].dims == ("time", "frequency", "polarization", "l", "m")
    peak = view["SKY"].squeeze(drop=True).compute()
    at = peak.where(peak == peak.max(), drop=True)
    assert np.degrees(at["l"].item()) * 3600 == pytest.approx(12 * 6)
    assert np.degrees(at["m"].item()) * 3600 == pytest.approx(8 * 6)


def test_a_view_reads_no_pixels_until_they_are_used(tmp_path, plane):
    fits.write_image(tmp_path / "g.image.fits", plane, HEADER, "JY/BEAM")
    view = fits.open_image(tmp_path / "g.image.fits")
    (tmp_path / "g.image.fits").unlink()
    with pytest.raises(CorruptFileError):
        view["SKY"].compute()


@pytest.mark.parametrize("content", [b"", b"not a FITS file" * 300])
def test_what_is_no_image_is_named(tmp_path, content):
    path = tmp_path / "bad.fits"
    path.write_bytes(content)
    for read in (fits.read_plane, fits.read_header, fits.open_image):
        with pytest.raises(CorruptFileError, match=r"bad\.fits"):
            read(path)


def test_a_truncated_image_is_named(tmp_path, plane):
    path = tmp_path / "cut.fits"
    fits.write_image(path, plane, HEADER, "JY/BEAM")
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(CorruptFileError, match=r"cut\.fits"):
        fits.read_plane(path)


def test_a_failed_write_leaves_the_earlier_image_as_it_was(tmp_path, plane):
    path = tmp_path / "a.image.fits"
    fits.write_image(path, plane, HEADER, "JY/BEAM")
    before = path.read_bytes()
    with pytest.raises(ValueError, match="ASCII"):
        fits.write_image(path, plane + 1, HEADER.__class__(**{**vars(HEADER), "telescope": "a\nb"}), "JY/BEAM")
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["a.image.fits"]


def test_a_place_that_cannot_be_written_is_an_error(tmp_path, plane):
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError):
        fits.write_image(tmp_path / "file" / "a.fits", plane, HEADER, "JY/BEAM")
