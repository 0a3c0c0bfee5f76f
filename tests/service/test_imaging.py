"""An image on request: a group or a Measurement Set, kept or not, and never in the place of the pipeline's own."""

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import dsa110_contimg as dc
from dsa110_contimg.cli import app
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.pipeline import STEPS, GroupRun
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
    before = sorted(settings.output_dir.rglob("*.fits"))
    made = make_image(run.records["convert"].path, settings, QUICK, skip_fits=True)
    assert (made.product, made.casa_image) == (None, None)
    assert np.isfinite(made.view["SKY"].values).all()
    assert sorted(settings.output_dir.rglob("*.fits")) == before
    assert list(settings.scratch_dir.glob(".image-*")) == []
    with pytest.raises(InputError, match="not to be kept"):
        make_image(run.records["convert"].path, settings, QUICK, skip_fits=True, casa_image=True)


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
    # where Python's standard output is replaced, as here, radler writes its messages to that
    (row,) = json.loads(done.stdout[done.stdout.index("[\n {") :])
    assert (row["tier"], row["pixels"], row["group"]) == ("development", 512, run.group_id)
    assert row["dynamic_range"] > 10
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")
    opened, exported = dc.open_image(row["path"]), dc.open_image(row["path"].removesuffix(".fits"))
    np.testing.assert_array_equal(opened["SKY"].values, exported["SKY"].values)
