"""Subtracting known sources and putting them back changes nothing that was observed, whatever the catalogue says."""

import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from astropy.table import Table

from dsa110_contimg.options import ImageOptions, MeasureOptions
from dsa110_contimg.stages.image import image
from dsa110_contimg.stages.measure import measure

IMAGING = ImageOptions(n_pixels=1080, cell_arcsec=12.0)
OPTIONS = MeasureOptions(min_flux_jy=1e-6)


def fluxes(record, catalog, place):
    return Table.read(measure(record, catalog, OPTIONS, place).path, format="ascii.ecsv").to_pandas()


@pytest.fixture(scope="module")
def quiet_sky(drifting_sky, field_catalog):
    """A twentieth of the thermal noise, so that a per mille can be seen."""
    return drifting_sky(field_catalog, noise=0.05)


def test_a_true_catalogue_leaves_noise_and_gives_its_fluxes_back(quiet_sky, field_catalog, tmp_path):
    record = image(quiet_sky, IMAGING, tmp_path, known=field_catalog)
    np.testing.assert_allclose(fluxes(record, field_catalog, tmp_path)["ratio"], 1.0, atol=2e-3)
    assert record.noise_jy == pytest.approx(0.05 * record.thermal_noise_jy, rel=0.1)


def test_a_catalogue_that_lies_does_not_change_the_fluxes(quiet_sky, field_catalog, tmp_path):
    """Half of the flux too much, a third too little, one source not listed, one that is not there."""
    lie = field_catalog.iloc[:11].copy()
    lie["flux_jy"] *= np.where(np.arange(11) % 2, 1.5, 0.67)
    ghost = lie.iloc[[3]].assign(name="ghost", dec_deg=lie["dec_deg"].iloc[3] - 0.25, flux_jy=0.3)
    lie = pd.concat([lie, ghost], ignore_index=True)
    record = image(quiet_sky, IMAGING, tmp_path, known=lie)
    found = fluxes(record, field_catalog, tmp_path)
    # what the catalogue has wrong, up to half of a source, is deconvolved in 12 major cycles to 2 % of itself
    np.testing.assert_allclose(found["ratio"], 1.0, atol=1e-2)
    there = fluxes(record, ghost, tmp_path)
    assert abs(there["flux_jy"].iloc[0]) < 0.005


def test_a_source_beyond_the_edge_is_taken_out(drifting_sky, field_catalog, tmp_path):
    """A small image with a source of 4 Jy outside: with the catalogue its sidelobes are gone."""
    sky = drifting_sky(field_catalog.iloc[:2], noise=0.05)
    small = IMAGING.model_copy(update={"n_pixels": 256, "max_iterations": 0})
    plain = image(sky, small, tmp_path / "plain")
    known = image(sky, small, tmp_path / "known", known=field_catalog.iloc[:2])
    assert known.noise_jy == pytest.approx(0.05 * known.thermal_noise_jy, rel=0.1)
    assert plain.noise_jy > 5 * known.noise_jy


def test_what_was_subtracted_stands_beside_the_model(quiet_sky, field_catalog, tmp_path):
    record = image(quiet_sky, IMAGING.model_copy(update={"max_iterations": 0}), tmp_path, known=field_catalog)
    table = fits.getdata(record.model_path, "KNOWN")
    assert len(table) == len(field_catalog)
    restored, residual = (fits.getdata(p)[0, 0] for p in (record.path, record.residual_path))
    x, y = round(float(table["X"][0])), round(float(table["Y"][0]))
    assert (restored - residual)[y, x] == pytest.approx(table["PEAK"][0], rel=0.1)
