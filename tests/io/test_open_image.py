"""Any image opens: what its header says is there, what it does not say is not made up."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits as astropy_fits
from astropy.wcs import WCS

import dsa110_contimg as dc
from dsa110_contimg.exceptions import CorruptFileError, InputError
from dsa110_contimg.io import casa, fits
from dsa110_contimg.io.casa_image import export_casa_image
from dsa110_contimg.settings import load_settings

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
)
SKY = {"CTYPE1": "RA---SIN", "CRVAL1": 187.7, "CRPIX1": 9.0, "CDELT1": -0.01, "CUNIT1": "deg"}
SKY |= {"CTYPE2": "DEC--SIN", "CRVAL2": 12.4, "CRPIX2": 7.0, "CDELT2": 0.01, "CUNIT2": "deg"}


def write(path: Path, data: np.ndarray, **cards: object) -> Path:
    header = astropy_fits.Header()
    for key, value in (SKY | cards).items():
        header[key.replace("_", "-")] = value
    astropy_fits.writeto(path, data.astype(">f4"), header)
    return path


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    plane = np.random.default_rng(1).normal(size=(64, 64)).astype(np.float32)
    for kind in ("image", "pb"):
        fits.write_image(tmp_path / f"g.{kind}.fits", plane, HEADER, fits.UNITS.get(kind, "JY/BEAM"))
    return tmp_path / "g.image.fits"


def test_what_a_header_does_not_say_is_not_known(tmp_path: Path) -> None:
    found = dc.open_image(write(tmp_path / "a.fits", np.ones((12, 16))))
    assert found["SKY"].shape == (1, 1, 1, 16, 12)
    assert np.isnan(found["time"]).all()
    assert np.isnan(found["frequency"]).all()
    assert list(found["polarization"].values) == [""]
    assert np.isnan(found.attrs["beam_deg"]).all()
    assert found.attrs["telescope_name"] is None
    assert "units" not in found["SKY"].attrs


@pytest.mark.parametrize("order", ["frequency third", "frequency fourth"])
def test_cubes_of_either_order_are_the_same_view(tmp_path: Path, order: str) -> None:
    cube = np.arange(3 * 2 * 5 * 6.0).reshape(3, 2, 5, 6)  # frequency, Stokes, y, x
    names = (("STOKES", 1.0, 1.0), ("FREQ", 1.3e9, 5e7))
    data = cube if order == "frequency fourth" else cube.swapaxes(0, 1)
    names = names if order == "frequency fourth" else names[::-1]
    cards = {}
    for axis, (kind, value, step) in enumerate(names, start=3):
        cards |= {f"CTYPE{axis}": kind, f"CRVAL{axis}": value, f"CDELT{axis}": step, f"CRPIX{axis}": 1.0}
    found = dc.open_image(write(tmp_path / "a.fits", data, **cards))
    np.testing.assert_array_equal(found["SKY"].values[0], cube.swapaxes(2, 3))
    np.testing.assert_allclose(found["frequency"], [1.3e9, 1.35e9, 1.4e9])
    assert list(found["polarization"].values) == ["I", "Q"]


def test_velocities_become_frequencies_where_the_rest_frequency_is_known(tmp_path: Path) -> None:
    axis = {"CTYPE3": "VRAD", "CRVAL3": 1e6, "CDELT3": 1e5, "CRPIX3": 1.0, "CUNIT3": "m/s"}
    known = dc.open_image(write(tmp_path / "a.fits", np.ones((2, 5, 6)), **axis, RESTFRQ=1.42e9))
    radio = 1.42e9 * (1 - np.array([1e6, 1.1e6]) / 299_792_458.0)
    np.testing.assert_allclose(known["frequency"], radio, rtol=1e-12)
    assert np.isnan(dc.open_image(write(tmp_path / "b.fits", np.ones((2, 5, 6)), **axis))["frequency"]).all()


@pytest.mark.parametrize(("equinox", "frame"), [(1950.0, "fk4"), (2000.0, "fk5"), (None, "icrs")])
def test_the_reference_point_is_icrs_whatever_the_frame(tmp_path: Path, equinox: float | None, frame: str) -> None:
    cards = {} if equinox is None else {"EQUINOX": equinox}
    found = dc.open_image(write(tmp_path / "a.fits", np.ones((5, 6)), **cards))
    place = SkyCoord(187.7 * u.deg, 12.4 * u.deg, frame=frame).icrs
    assert found.attrs["frame"] == frame
    np.testing.assert_allclose(found.attrs["phase_center_ra"], place.ra.rad, atol=1e-10)
    np.testing.assert_allclose(found.attrs["phase_center_dec"], place.dec.rad, atol=1e-10)


def test_directions_are_those_of_astropy(tmp_path: Path) -> None:
    path = write(tmp_path / "a.fits", np.ones((12, 16)))
    found = dc.open_image(path)
    ra, dec = np.radians(WCS(astropy_fits.getheader(path)).wcs_pix2world(3, 10, 0))
    offset = ra - found.attrs["phase_center_ra"]
    assert found["l"].values[3] == pytest.approx(np.cos(dec) * np.sin(offset), abs=1e-12)
    centre = found.attrs["phase_center_dec"]
    m = np.sin(dec) * np.cos(centre) - np.cos(dec) * np.sin(centre) * np.cos(offset)
    assert found["m"].values[10] == pytest.approx(m, abs=1e-12)


def test_the_beam_and_date_of_an_image_of_aips_are_found(tmp_path: Path) -> None:
    lines = "AIPS   CLEAN BMAJ=  1.2500E-02 BMIN=  5.5600E-03 BPA=  95.00"
    found = dc.open_image(write(tmp_path / "a.fits", np.ones((5, 6)), HISTORY=lines, DATE_OBS="25/02/84"))
    assert found.attrs["beam_deg"] == (0.0125, 0.00556, 95.0)
    assert found.attrs["mjd_start"] == 45755.0
    assert np.isnan(found.attrs["mjd_end"])
    assert found["time"].item() == 45755.0


@pytest.mark.parametrize(
    "cards",
    [
        {"CTYPE1": "FREQ", "CUNIT1": "Hz"},
        {"CTYPE1": "DEC--SIN", "CTYPE2": "RA---SIN"},
    ],
)
def test_what_is_no_image_of_the_sky_is_refused(tmp_path: Path, cards: dict[str, str]) -> None:
    path = write(tmp_path / "spectrum.fits", np.ones((5, 6)), **cards)
    with pytest.raises(CorruptFileError, match=r"spectrum\.fits"):
        dc.open_image(path)


def test_what_is_not_there_and_what_is_a_table_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.fits"):
        dc.open_image(tmp_path / "none.fits")
    (tmp_path / "folder").mkdir()
    with pytest.raises(CorruptFileError, match=r"no table\.dat"):
        dc.open_image(tmp_path / "folder")
    columns = astropy_fits.BinTableHDU.from_columns([astropy_fits.Column("A", "J", array=[1])])
    columns.writeto(tmp_path / "table.fits")
    with pytest.raises(CorruptFileError, match="holds no image"):
        dc.open_image(tmp_path / "table.fits")


def test_any_product_of_ours_opens_the_whole(ours: Path) -> None:
    restored, beam = dc.open_image(ours), dc.open_image(ours.with_name("g.pb.fits"))
    assert set(beam.data_vars) == {"SKY", "PRIMARY_BEAM"}
    np.testing.assert_array_equal(beam["SKY"].values, restored["SKY"].values)
    assert restored.attrs["group_id"] == "2026-01-26T02:24:00"
    assert restored["time"].item() == pytest.approx((HEADER.mjd_start + HEADER.mjd_end) / 2, abs=1e-9)


def test_planes_that_were_never_written_are_the_same_view(ours: Path) -> None:
    planes = {kind: fits.read_plane(ours.with_name(f"g.{kind}.fits")) for kind in ("image", "pb")}
    made, opened = fits.image_dataset(planes, HEADER), dc.open_image(ours).compute()
    for name in ("SKY", "PRIMARY_BEAM"):
        np.testing.assert_array_equal(made[name].values, opened[name].values)
    assert made.attrs["beam_deg"] == opened.attrs["beam_deg"]
    np.testing.assert_allclose(made["l"], opened["l"], rtol=1e-12)


def test_real_images_of_parkes_open(validation_data: Path) -> None:
    path = validation_data / "image" / "1904-66_SIN.fits"
    found = dc.open_image(path)
    assert found.attrs["frame"] == "fk5"
    assert found.attrs["beam_deg"] == (0.2399999936422, 0.2399999936422, 0.0)
    assert np.isnan(found["frequency"]).all()
    expected = astropy_fits.getdata(path)
    np.testing.assert_array_equal(found["SKY"].values[0, 0, 0].T, expected)
    with pytest.raises(CorruptFileError, match="holds no image"):
        dc.open_image(path.with_name("1904_comp.fits"))


def test_casa_reads_our_header_and_we_read_its_image(ours: Path, tmp_path: Path) -> None:
    made = export_casa_image(ours, tmp_path / "g.casa", workdir=tmp_path / "work")
    there, here = dc.open_image(made), dc.open_image(ours)
    np.testing.assert_array_equal(there["SKY"].values, here["SKY"].values)
    for name in ("l", "m", "frequency"):
        np.testing.assert_allclose(there[name], here[name], rtol=1e-9)
    for name in ("phase_center_ra", "phase_center_dec"):
        assert there.attrs[name] == pytest.approx(here.attrs[name], rel=1e-9)
    # an ellipse is the same after half a turn
    beams = [np.array(view.attrs["beam_deg"]) % 180.0 for view in (there, here)]
    np.testing.assert_allclose(*beams, rtol=1e-7)
    assert there.attrs["frame"] == "icrs"
    assert there.attrs["mjd_start"] == pytest.approx(HEADER.mjd_start, abs=1e-8)
    assert there.attrs["telescope_name"] == "DSA_110"
    # CASA's own reading of a pixel: ICRS degrees by its coordinate system
    (told,) = casa.run_tasks(
        [casa.CasaTask("imval", {"imagename": str(made), "box": "20,40,20,40"})], workdir=tmp_path / "work"
    )
    wcs = WCS(astropy_fits.getheader(ours)).celestial
    expected = np.radians(wcs.wcs_pix2world(20, 40, 0))
    coords = np.ravel(told["coords"])[:2]
    np.testing.assert_allclose(coords, expected, atol=1e-10)


def test_there_is_nothing_to_export_without_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nothing"):
        export_casa_image(tmp_path / "a.fits", tmp_path / "a.casa", workdir=tmp_path)


@pytest.fixture
def validation_data() -> Path:
    where = load_settings().validation_data
    if not (where / "image").is_dir():
        pytest.skip(f"no real images in {where}")
    return where
