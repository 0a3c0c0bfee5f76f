"""``dsa110 beam fit`` on a database of groups whose images saw a beam 5 % wider than the Airy pattern."""

import json

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.table import Table
from typer.testing import CliRunner

from dsa110_contimg import telescope
from dsa110_contimg.commands.beam import app
from dsa110_contimg.exceptions import MeasurementError
from dsa110_contimg.io.beams import read_beam
from dsa110_contimg.records import ImageProduct, Photometry
from dsa110_contimg.science.beam import AiryBeam, primary_beam, separation
from dsa110_contimg.science.response import Response
from dsa110_contimg.service import beams
from dsa110_contimg.settings import load_settings
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products

WIDE = AiryBeam(telescope.DISH_DIAMETER_M / 1.05)
FREQUENCY = np.linspace(1.33e9, 1.48e9, 4)
N_GROUPS = 12


@pytest.fixture(scope="module")
def observed(tmp_path_factory):
    """Settings of a state directory with the night in it, and the path of its source list."""
    place = tmp_path_factory.mktemp("night")
    rng = np.random.default_rng(5)
    n = 500
    flux = 10 ** rng.uniform(-1, 0.5, n)
    catalog = pd.DataFrame(
        {
            "name": [f"S{k}" for k in range(n)],
            "ra_deg": rng.uniform(77.0, 100.0, n),
            "dec_deg": rng.uniform(14.0, 18.0, n),
            "flux_jy": flux,
            "spectral_index": rng.normal(-0.7, 0.2, n),
        }
    )
    catalog.to_csv(place / "sources.csv", index=False)
    settings = load_settings(state_dir=place / "state")
    products = Products(open_database(settings.state_dir))
    for g in range(N_GROUPS):
        pointing = np.radians(80.0 + 1.29 * (g + (np.arange(8) - 3.5) / 8))
        saw = Response(pointing, np.full(8, np.radians(16.0)), FREQUENCY, np.ones((8, 4)), WIDE)
        _record(products, place, g, saw, catalog, rng)
    return settings, place / "sources.csv"


def _record(products, place, number, saw, catalog, rng):
    group = f"2026-01-26T04:{number:02d}:00"
    paths = {
        kind: place / f"{group}.{kind}.fits"
        for kind in ("image", "pbcor", "pb", "residual", "model", "psf", "smearing")
    }
    table = Table(
        {
            "POINTING_RA": np.degrees(saw.pointing_ra),
            "POINTING_DEC": np.degrees(saw.pointing_dec),
            "FREQUENCY": np.tile(saw.frequencies, (8, 1)),
            "WEIGHT": saw.weights,
            "DISH_DIAMETER": np.full(8, telescope.DISH_DIAMETER_M),
        }
    )
    hdu = fits.table_to_hdu(table)
    hdu.name = "RESPONSE"
    fits.HDUList([fits.PrimaryHDU(np.zeros((2, 2))), hdu]).writeto(paths["pb"])
    image = ImageProduct(
        path=paths["image"],
        **{f"{kind}_path": paths[kind] for kind in paths if kind != "image"},
        group_id=group, ra_deg=80.0, dec_deg=16.0, mjd_start=61066.0 + number / 300, mjd_end=61066.003 + number / 300,
        n_pixels=2, cell_arcsec=6.0, bmaj_deg=0.01, bmin_deg=0.01, bpa_deg=0.0, noise_jy=1e-3, thermal_noise_jy=1e-3,
        frequency_hz=1.4e9, flux_scale_error=0.02,
    )  # fmt: skip
    products.record_image(image)
    ra, dec = np.radians(catalog["ra_deg"].to_numpy()), np.radians(catalog["dec_deg"].to_numpy())
    farthest = separation(ra[:, None], dec[:, None], saw.pointing_ra, saw.pointing_dec).max(axis=1)
    here = np.flatnonzero(farthest < np.radians(2.2))
    response = saw.at(ra[here], dec[here], catalog["spectral_index"].to_numpy()[here])
    rows = pd.DataFrame({"source": catalog["name"].to_numpy()[here], "group": group, "mjd": image.mjd_mid})
    true = catalog["flux_jy"].to_numpy()[here] * (1 + 0.01 * rng.normal(size=len(here)))
    rows["flux_raw_jy"] = true * response * 0.99 + 1e-3 * rng.normal(size=len(here))
    rows["smearing"], rows["local_noise_jy"], rows["quality"] = 0.99, 1e-3, 0
    for name in ("ra_deg", "dec_deg"):
        rows[name] = catalog[name].to_numpy()[here]
    # one blend, which would spoil the fit
    rows.loc[0, ["flux_raw_jy", "quality"]] = [50.0, 1]
    products.record_photometry(Photometry(place / "p", group, image.path, len(here), 1, 1.0, 0.0, 0.02), rows)


def test_the_wider_beam_comes_out_and_its_table_can_be_used(observed, tmp_path):
    settings, catalog = observed
    seen = []
    found = beams.fit(settings, tmp_path / "beam.ecsv", catalog=catalog, progress=lambda *done: seen.append(done))
    truth = WIDE.power(np.radians(found.angle_deg), 1.4e9)
    assert (np.abs(found.power - truth) <= np.maximum(4 * found.error, 1e-6)).all()
    assert found.error[found.angle_deg < 1.5].max() < 0.01
    assert seen[-1] == (N_GROUPS, N_GROUPS)
    beam = primary_beam(read_beam(tmp_path / "beam.ecsv"))
    assert beam.diameter_m == pytest.approx(WIDE.diameter_m, rel=0.01)


def test_the_command_writes_and_prints_it(observed, tmp_path, monkeypatch):
    settings, catalog = observed
    words = [
        "fit",
        "--out",
        str(tmp_path / "b.ecsv"),
        "--catalog",
        str(catalog),
        "--state-dir",
        str(settings.state_dir),
    ]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)
    assert rows[0]["power"] == 1.0
    # at one degree 5 % of width are three per cent
    near = min(rows, key=lambda row: abs(row["angle_deg"] - 1.0))
    assert near["power"] - near["airy"] == pytest.approx(0.03, abs=0.01)
    assert len(read_beam(tmp_path / "b.ecsv")) == len(rows)


def test_without_photometry_there_is_no_beam(observed, tmp_path):
    empty = load_settings(state_dir=tmp_path / "state")
    open_database(empty.state_dir)
    with pytest.raises(MeasurementError, match="no photometry"):
        beams.fit(empty, tmp_path / "beam.ecsv")
    settings, _ = observed
    with pytest.raises(MeasurementError, match="of the catalogue"):
        beams.fit(settings, tmp_path / "beam.ecsv")
    assert not (tmp_path / "beam.ecsv").exists()
