"""An image on request: a group or a Measurement Set, kept or not, and never in the place of the pipeline's own."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from astropy.io import fits
from casacore.tables import makecoldesc
from typer.testing import CliRunner

import dsa110_contimg as dc
from dsa110_contimg.cli import app
from dsa110_contimg.exceptions import ImagingError, InputError
from dsa110_contimg.io import casa, ms
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.pipeline import STEPS, GroupRun
from dsa110_contimg.science.imaging import memory_estimate
from dsa110_contimg.service.imaging import make_image
from dsa110_contimg.settings import load_settings
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products

QUICK = ImageOptions(quick=True, threads=1)


@pytest.fixture(scope="module")
def calibrated(night16, tmp_path_factory):
    """Settings, and the run of a calibrator's group up to its corrected data."""
    base = tmp_path_factory.mktemp("imaging")
    names = ("output_dir", "scratch_dir", "state_dir", "reports_dir")
    settings = load_settings(input_dir=night16.directory, **{name: base / name for name in names})
    run = GroupRun(night16.groups[1], settings)
    for step in STEPS[: STEPS.index("image")]:
        run.step(step)
    return settings, run


def test_an_image_with_options_of_ones_own_is_kept_apart(calibrated):
    settings, run = calibrated
    told = []
    made = make_image(run.records["convert"].path, settings, QUICK, lambda *what: told.append(what))
    assert made.product.path.parent == settings.output_dir / "images" / QUICK.digest()
    assert made.view.sizes["l"] == 512
    products = Products(open_database(settings.state_dir))
    assert products.list_images() == []
    (row,) = products.list_images(run_label=f"image {QUICK.digest()}")
    assert row["path"] == str(made.product.path)
    # 3C138, 8.6 Jy, a tenth of a degree from the middle
    assert float(made.view["SKY"].max()) == pytest.approx(8.2, rel=0.1)
    assert {what[0] for what in told} == {"image"}


def test_an_image_that_is_not_kept_leaves_nothing(calibrated):
    settings, run = calibrated
    folders = (settings.output_dir, settings.scratch_dir)
    before = [sorted(folder.rglob("*.fits")) for folder in folders]
    made = make_image(run.records["convert"].path, settings, QUICK, skip_fits=True)
    assert (made.product, made.casa_image) == (None, None)
    assert np.isfinite(made.view["SKY"].values).all()
    assert [sorted(folder.rglob("*.fits")) for folder in folders] == before
    kept = make_image(run.records["convert"].path, settings, QUICK)
    for name in ("SKY", "SKY_PBCOR", "PRIMARY_BEAM", "RESIDUAL", "MODEL", "PSF", "SMEARING", "NOISE"):
        np.testing.assert_allclose(made.view[name].values, kept.view[name].values, rtol=1e-4, atol=1e-4)
    for name in ("tier", "imager", "phase_center_ra", "frame"):
        assert made.view.attrs[name] == kept.view.attrs[name]
    for name in ("beam_deg", "noise_jy"):
        assert made.view.attrs[name] == pytest.approx(kept.view.attrs[name], rel=1e-3)
    with pytest.raises(InputError, match="not to be kept"):
        make_image(run.records["convert"].path, settings, QUICK, skip_fits=True, casa_image=True)


def test_cubes_that_are_asked_for_are_beside_the_image(calibrated):
    settings, run = calibrated
    options = QUICK.model_copy(update={"subbands": 2})
    made = make_image(run.records["convert"].path, settings, options)
    cube = made.product.path.with_name(f"{run.group_id}.subbands.fits")
    assert fits.getheader(cube)["NAXIS3"] * fits.getheader(cube)["NAXIS4"] == 2
    with pytest.raises(InputError, match=r"Cubes.*skip-fits"):
        make_image(run.records["convert"].path, settings, options, skip_fits=True)


def test_an_image_is_registered_though_its_cube_fails(calibrated):
    settings, run = calibrated
    # room for the image, and not for 48 planes and their beams, 0.15 GB
    limit = memory_estimate(512, 0) / 1e9 + 0.12
    options = QUICK.model_copy(update={"subbands": 48, "memory_gb": limit})
    with pytest.raises(ImagingError, match="GB by estimate"):
        make_image(run.records["convert"].path, settings, options)
    (row,) = Products(open_database(settings.state_dir)).list_images(run_label=f"image {options.digest()}")
    assert fits.getheader(row["path"])["OBJECT"] == run.group_id


def test_a_group_has_no_fields_to_choose(calibrated):
    settings, run = calibrated
    with pytest.raises(InputError, match=r"group is imaged whole.*field 0"):
        make_image(Path(run.group_id), settings, QUICK, field=0)


def fill(path, column, value):
    """Allocate a column as DATA is, of one value."""
    with ms.opened(path, writable=True) as main:
        if column not in main.colnames():
            main.addcols(makecoldesc(column, main.getcoldesc("DATA")))
        for row in range(main.nrows()):
            main.putcell(column, row, np.full_like(main.getcell("DATA", row), value))


def test_a_column_of_zeros_is_refused_and_named(calibrated, vla, tmp_path):
    theirs, ours = tmp_path / "theirs.ms", tmp_path / "ours.ms"
    shutil.copytree(vla[0], theirs)
    shutil.copytree(calibrated[1].records["convert"].path, ours)
    fill(theirs, "CORRECTED_DATA", 0)
    fill(ours, "CORRECTED_DATA", 0)
    with pytest.raises(InputError, match=r"CORRECTED_DATA holds nothing.*without this column DATA is imaged"):
        make_image(theirs, vla[1], QUICK, skip_fits=True)
    with pytest.raises(InputError, match=r"CORRECTED_DATA holds nothing.*applied"):
        make_image(ours, calibrated[0], QUICK, skip_fits=True)
    # one integration that is not zero is data, wherever it is
    with ms.opened(theirs, writable=True) as main:
        last = main.getcol("TIME") == main.getcol("TIME").max()
        for row in np.flatnonzero(last):
            main.putcell("CORRECTED_DATA", int(row), main.getcell("DATA", int(row)))
    assert make_image(theirs, vla[1], QUICK, skip_fits=True).view.sizes["l"] == 512


@pytest.fixture(scope="module")
def vla(tmp_path_factory):
    """A Measurement Set that CASA made of a VLA field, in two spectral windows, and settings of an empty place."""
    uvfits = load_settings().validation_data / "vla" / "C346R424_VLA_1400MHz_caldata.uvfits"
    if not uvfits.is_file():
        pytest.skip(f"no {uvfits}: DSA110_VALIDATION_DATA names the folder of real data")
    base = tmp_path_factory.mktemp("foreign")
    casa.import_uvfits(uvfits, base / "field.ms", workdir=base / "casa")
    return base / "field.ms", load_settings(
        **{name: base / name for name in ("output_dir", "scratch_dir", "state_dir")}
    )


def test_another_telescopes_measurement_set_is_imaged_on_a_grid_of_its_own(vla):
    path, settings = vla
    options = ImageOptions(threads=1)
    made = make_image(path, settings, options)
    header = fits.getheader(made.product.path)
    # B array: 11.1 km at 1444 MHz are 3.85 arcsec, and a dish of 25 m sees half a degree
    assert (made.product.n_pixels, header["NAXIS1"]) == (1800, 1800)
    assert made.product.cell_arcsec == pytest.approx(1.5, rel=1.1e-4)
    told = "".join(header["HISTORY"])
    assert "1800 x 1.5 arcsec derived from 11128 m, 1355.53 to 1444.47 MHz, dishes of 25 m" in told
    assert "VLA, field 0, DATA in 2 spectral windows" in told
    # as WSClean 3.1 images the same: 0.157 mJy/beam, 4.8 x 3.8 arcsec
    assert made.product.noise_jy == pytest.approx(0.157e-3, rel=0.2)
    assert made.product.bmaj_deg * 3600 == pytest.approx(4.8, rel=0.1)
    (row,) = Products(open_database(settings.state_dir)).list_images(run_label=f"image {options.digest()}")
    assert (row["path"], row["n_pixels"]) == (str(made.product.path), 1800)


def test_a_cube_of_several_windows_is_refused(vla):
    path, settings = vla
    with pytest.raises(InputError, match=r"one spectral window.*2"):
        make_image(path, settings, QUICK.model_copy(update={"subbands": 2}))


def test_fields_of_another_telescope_are_chosen_by_number(vla, calibrated):
    path, settings = vla
    with pytest.raises(InputError, match=r"No such field.*0 C346R424"):
        make_image(path, settings, QUICK, field=3)
    with ms.opened(path / "FIELD", writable=True) as fields, ms.opened(path, writable=True) as main:
        fields.addrows(1)
        fields.copyrows(fields, 0, 1, 1)
        main.putcell("FIELD_ID", main.nrows() - 1, 1)
    with pytest.raises(InputError, match=r"several fields.*0 C346R424; 1 C346R424.*--field"):
        make_image(path, settings, QUICK)
    assert make_image(path, settings, QUICK, field=0, skip_fits=True).view.sizes["l"] == 512
    ours = calibrated[1].records["convert"].path
    with pytest.raises(InputError, match="imaged whole"):
        make_image(ours, settings, QUICK, field=0)


def test_the_command_takes_a_group_and_writes_what_is_asked_for(calibrated, tmp_path):
    settings, run = calibrated
    folders = {
        "--out": "output_dir",
        "--state-dir": "state_dir",
        "--scratch-dir": "scratch_dir",
        "--input": "input_dir",
    }
    where = [word for flag, name in folders.items() for word in (flag, str(getattr(settings, name)))]
    flags = [
        "--tier",
        "development",
        "--quick",
        "--cell",
        "6",
        "--threads",
        "1",
        "--casa-image",
        "--picture",
        str(tmp_path / "a.png"),
    ]
    done = CliRunner().invoke(app, ["image", run.group_id, *where, *flags, "--json"])
    assert done.exit_code == 0, done.output
    (row,) = json.loads(done.stdout)
    assert (row["tier"], row["pixels"], row["group"]) == ("development", 512, run.group_id)
    assert row["dynamic_range"] > 10
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    opened, exported = dc.open_image(row["path"]), dc.open_image(row["path"].removesuffix(".fits"))
    np.testing.assert_array_equal(opened["SKY"].values, exported["SKY"].values)
