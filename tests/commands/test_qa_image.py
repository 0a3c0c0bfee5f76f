"""``dsa110 qa image``: what it finds of an image by path and by group, exit codes, and the block on a group's page."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table
from typer.testing import CliRunner

from dsa110_contimg import reports
from dsa110_contimg.commands import qa
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.io import fits
from dsa110_contimg.records import Photometry
from dsa110_contimg.reports.imaging import ImageReview, judge_product, product_from_files
from dsa110_contimg.science.restoring import Beam
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products

GROUP = "2026-01-26T04:45:25"
N, CELL_DEG, NOISE = 400, 6 / 3600, 0.4e-3
BEAM_DEG = (44 / 3600, 20 / 3600, 90.0)


def write(directory, *, hole=0.0, thermal=NOISE, weight="briggs +0.5"):
    header = fits.ImageHeader(
        n_pixels=N,
        cell_deg=CELL_DEG,
        ra_deg=80.0,
        dec_deg=16.6,
        frequency_hz=1.4e9,
        bandwidth_hz=187.5e6,
        beam_deg=BEAM_DEG,
        mjd_start=61066.2,
        mjd_end=61066.2036,
        vafactor=1.0,
        telescope="DSA_110",
        provenance=(("OBJECT", GROUP, ""), ("WEIGHT", weight, ""), ("RESNOISE", NOISE, ""), ("THERMAL", thermal, "")),
    )
    residual = np.random.default_rng(1).normal(0, NOISE, (N, N)).astype(np.float32)
    beam, cell = Beam(*np.radians(BEAM_DEG)), math.radians(CELL_DEG)
    y, x = np.mgrid[:N, :N] - N // 2
    source = beam.value(-x * cell, y * cell)
    restored = (residual + 0.2 * source - hole * np.roll(source, 90, axis=1)).astype(np.float32)
    path = directory / "images" / f"{GROUP}.image.fits"
    path.parent.mkdir(exist_ok=True)
    for kind in ("pbcor", "pb", "model", "psf", "smearing"):
        fits.write_image(fits.companion(path, kind), np.ones((4, 4), np.float32), header, "")
    fits.write_image(fits.companion(path, "residual"), residual, header, "JY/BEAM")
    fits.write_image(path, restored, header, "JY/BEAM")
    return path


def fluxes(path, ratio=1.0):
    n = 8
    return pd.DataFrame(
        {
            "source": [f"S{k}" for k in range(n)],
            "group": GROUP,
            "mjd": 61066.2,
            "flux_raw_jy": 0.1,
            "local_noise_jy": NOISE,
            "beam_response": 0.8,
            "quality": 0,
            "ratio": ratio,
            "offset_ra_arcsec": [math.nan, *np.linspace(-0.5, 0.5, n - 1)],
            "offset_dec_arcsec": 0.1,
            "image": str(path),
        }
    )


@pytest.fixture
def here(monkeypatch, tmp_path):
    for name in ("STATE", "REPORTS", "SCRATCH", "OUTPUT"):
        monkeypatch.setenv(f"PIPELINE_{name}_DIR", str(tmp_path / name.lower()))
    return tmp_path


def call(*words):
    return CliRunner().invoke(qa.app, ["image", *map(str, words)])


def test_a_good_image_exits_with_0_and_one_with_a_hole_with_1(here):
    done = call(write(here), "--json")
    assert done.exit_code == 0, done.output
    body = json.loads(done.output)
    assert (body["level"], body["group"], body["reasons"]) == ("good", GROUP, [])
    done = call(write(here, hole=0.01), "--json")
    assert done.exit_code == 1
    assert any("Deepest negative" in f["figure"] and f["verdict"] == "bad" for f in json.loads(done.output)["figures"])
    done = call(write(here))
    assert "verdict: good" in done.output


def test_a_group_is_judged_with_the_fluxes_of_the_database(here):
    path = write(here)
    products = Products(open_database(here / "state"))
    products.record_image(product_from_files(path))
    record = Photometry(here / "p.ecsv", GROUP, path, 8, 8, 1.2, 0.0)
    products.record_photometry(record, fluxes(path, ratio=1.2))
    done = call(GROUP, "--json")
    assert done.exit_code == 1
    (wrong,) = json.loads(done.output)["reasons"]
    assert wrong.startswith("image median flux over catalogue 1.2")
    assert isinstance(call("2020-01-01T00:00:00").exception, InputError)


def test_a_path_takes_the_fluxes_beside_it_if_they_are_of_this_image(here):
    path = write(here)
    table = here / "photometry" / f"{GROUP}.photometry.ecsv"
    table.parent.mkdir()
    for of, asked in ((path, True), (here / "another.image.fits", False)):
        Table.from_pandas(fluxes(of)).write(table, format="ascii.ecsv", overwrite=True)
        names = {figure.name for figure in ImageReview.open(str(path), here / "state").verdict.figures}
        assert ("median_flux_ratio" in names) is asked


def test_an_image_without_its_residual_is_refused_by_name(here):
    path = write(here)
    fits.companion(path, "residual").unlink()
    with pytest.raises(InputError, match="residual"):
        product_from_files(path)


def test_the_size_of_a_tapered_beam_is_not_asked(here):
    verdict = judge_product(product_from_files(write(here, weight="briggs +0.5 taper 60")))
    assert "beam_size_ratio" not in {figure.name for figure in verdict.figures}


def test_a_groups_verdict_holds_the_figures_of_its_image_once(here):
    record = product_from_files(write(here, hole=0.01))
    alone = reports.judge_group({"image": record})
    both = reports.judge_group({"image": record}, image=judge_product(record))
    assert both.judged[: len(alone.judged)] == alone.judged
    added = [item.name for item in both.judged[len(alone.judged) :]]
    assert "image.deepest_negative_sigma" in added
    assert not any(name.endswith(("noise_over_thermal", "beam_axis_ratio")) for name in added)
    assert both.level == "bad"
    assert both.from_dict(both.to_dict()) == both
