"""`measure`: fluxes, positions and errors against the sky that was observed."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from astropy.table import Table

from dsa110_contimg.exceptions import CorruptFileError, MeasurementError
from dsa110_contimg.options import ImageOptions, MeasureOptions
from dsa110_contimg.records import Photometry
from dsa110_contimg.science import interpolation
from dsa110_contimg.science.photometry import Quality
from dsa110_contimg.stages.image import image
from dsa110_contimg.stages.measure import measure

IMAGING = ImageOptions(n_pixels=1080, cell_arcsec=12.0)
OPTIONS = MeasureOptions(min_flux_jy=1e-6)
COLUMNS = [
    "source", "group", "mjd", "ra_deg", "dec_deg", "flux_jy", "flux_error_jy", "flux_raw_jy", "local_noise_jy",
    "beam_response", "smearing", "catalog_flux_jy", "ratio", "x_pixel", "y_pixel", "offset_ra_arcsec",
    "offset_dec_arcsec", "quality", "image",
]  # fmt: skip


def rows(record):
    return Table.read(record.path, format="ascii.ecsv").to_pandas()


@pytest.fixture(scope="module")
def quiet(drifting_sky, field_catalog, tmp_path_factory):
    """A tenth of the thermal noise."""
    place = tmp_path_factory.mktemp("quiet")
    record = image(drifting_sky(field_catalog, noise=0.1), IMAGING, place)
    return record, measure(record, field_catalog, OPTIONS, place)


@pytest.fixture(scope="module")
def noisy(drifting_sky, field_catalog, tmp_path_factory):
    place = tmp_path_factory.mktemp("noisy")
    return image(drifting_sky(field_catalog, noise=1.0, seed=7), IMAGING, place)


def test_fluxes_are_recovered_through_drift_spectrum_smearing_and_sidelobes(quiet):
    table = rows(quiet[1])
    assert len(table) == 12
    np.testing.assert_allclose(table["ratio"], 1.0, atol=3e-3)
    assert quiet[1].median_ratio == pytest.approx(1.0, abs=1e-3)


def test_positions_are_recovered_to_a_fiftieth_of_the_beam(quiet):
    table, beam = rows(quiet[1]), quiet[0].bmin_deg * 3600
    single = (table["quality"] & Quality.BLENDED.value) == 0
    offset = np.hypot(table["offset_ra_arcsec"], table["offset_dec_arcsec"])
    assert (offset[single] < 0.02 * beam).all()
    # a common shift or a scale of the field would show in the mean
    assert abs(table["offset_ra_arcsec"].median()) < 0.005 * beam
    assert abs(table["offset_dec_arcsec"].median()) < 0.005 * beam


def test_errors_are_those_of_the_measurements(noisy, field_catalog, tmp_path):
    """Sources and 88 blank positions inside the half-power radius: chi-square 1, no bias, errors from the noise."""
    rng = np.random.default_rng(4)
    blank = field_catalog.iloc[[0] * 88].copy()
    blank["name"] = [f"B{k:02d}" for k in range(88)]
    blank["ra_deg"] += 80.3 - blank["ra_deg"] + rng.uniform(-1.1, 1.1, 88)
    blank["dec_deg"] += 16.6 - blank["dec_deg"] + rng.uniform(-1.1, 1.1, 88)
    blank["flux_jy"] = 1e-6  # nothing is there, and that is what is to be found
    table = rows(measure(noisy, pd.concat([field_catalog, blank]), OPTIONS, tmp_path))
    pull = (table["flux_jy"] - table["catalog_flux_jy"]) / table["flux_error_jy"]
    pull = pull[(table["quality"] & Quality.CONFUSED.value) == 0].to_numpy()
    assert len(pull) > 80
    assert np.mean(pull**2) == pytest.approx(1.0, abs=4 * np.sqrt(2 / len(pull)))
    assert abs(np.mean(pull)) < 4 / np.sqrt(len(pull))
    alone = table["quality"] & (Quality.BLENDED.value | Quality.CONFUSED.value) == 0
    expected = table["local_noise_jy"] / table["beam_response"] / table["smearing"]
    np.testing.assert_allclose(table["flux_error_jy"][alone], expected[alone], rtol=0.05)


def test_the_error_of_the_flux_scale_and_of_the_spectrum_enter_the_errors(quiet, field_catalog, tmp_path):
    import dataclasses

    record = dataclasses.replace(quiet[0], flux_scale_error=0.03)
    steep = field_catalog.assign(spectral_index_error=2.0)
    table = rows(measure(record, field_catalog, OPTIONS, tmp_path / "scale"))
    np.testing.assert_allclose(table["flux_error_jy"] / table["flux_jy"], 0.03, rtol=0.02)
    wide = rows(measure(quiet[0], steep, OPTIONS, tmp_path / "steep"))
    base = rows(quiet[1])
    assert (wide["flux_error_jy"] > base["flux_error_jy"]).all()
    np.testing.assert_allclose(wide["flux_jy"], base["flux_jy"])


def test_the_quality_of_the_gains_reaches_every_flux_and_the_field_tells_an_assumed_scale(
    quiet, field_catalog, tmp_path
):
    import dataclasses

    record = dataclasses.replace(quiet[0], flux_scale_error=0.03)
    base = rows(quiet[1])
    # the catalogue 2 % up is the same as the gains 1 % off
    shifted = field_catalog.assign(flux_jy=1.02 * field_catalog["flux_jy"])
    bits = interpolation.BEYOND_VALIDITY | interpolation.DRIFT_ASSUMED
    for catalog, told in ((field_catalog, 0.0), (shifted, 0.02)):
        record_of = measure(record, catalog, OPTIONS, tmp_path / f"{told}", calibration_quality=bits)
        table = rows(record_of)
        added = (Quality.GAINS_OLD | Quality.DRIFT_ASSUMED).value
        assert (table["quality"] == base["quality"] | added).all()
        scale = Table.read(record_of.path, format="ascii.ecsv").meta["flux_scale_error"]
        # the sources scatter by less than a per cent, and there are ten of them
        assert scale == pytest.approx(told, abs=0.003)
        np.testing.assert_allclose(table["flux_jy"], base["flux_jy"])
    old = measure(record, shifted, OPTIONS, tmp_path / "old", calibration_quality=interpolation.BEYOND_VALIDITY)
    assert Table.read(old.path, format="ascii.ecsv").meta["flux_scale_error"] == 0.03, "a drift that is known stands"


def test_the_table_has_the_agreed_columns_and_says_what_they_are(quiet):
    table = Table.read(quiet[1].path, format="ascii.ecsv")
    assert table.colnames == COLUMNS
    assert str(table["flux_jy"].unit) == "Jy"
    assert "not known" in table.meta["flux_scale_error"]
    assert table.meta["quality"]["BLENDED"] == Quality.BLENDED.value
    assert (table["image"] == str(quiet[0].path)).all()
    np.testing.assert_allclose(table["mjd"], quiet[0].mjd_mid)


def test_the_record_sums_up_the_bright_sources_of_the_main_beam(quiet):
    record = quiet[1]
    table = rows(record)
    assert record.n_sources == len(table)
    assert record.n_bright == (table["beam_response"] >= 0.5).sum() > 3
    assert record.ratio_scatter < 3e-3
    # what is not known is NaN, which equals nothing
    assert replace(Photometry.from_json(record.to_json()), flux_scale_error=0.0) == replace(
        record, flux_scale_error=0.0
    )


def test_only_sources_in_the_beam_and_above_the_limit_are_measured(quiet, field_catalog, tmp_path):
    far = field_catalog.assign(ra_deg=field_catalog["ra_deg"] + 180.0, name=lambda t: "far" + t["name"])
    both = pd.concat([field_catalog, far])
    table = rows(measure(quiet[0], both, MeasureOptions(min_flux_jy=1.0, min_beam=0.3), tmp_path))
    assert (table["catalog_flux_jy"] >= 1.0).all()
    assert (table["beam_response"] > 0.28).all()
    assert not table["source"].str.startswith("far").any()
    with pytest.raises(MeasurementError, match="No catalogue source"):
        measure(quiet[0], far, OPTIONS, tmp_path)


def test_quality_tells_blends_edges_faint_and_displaced_sources(quiet, field_catalog, tmp_path):
    beam, x_deg = quiet[0].bmin_deg, 1 / np.cos(np.radians(16.6))
    one = field_catalog.iloc[[0]]
    moved = one.assign(name="moved", dec_deg=one["dec_deg"] + 0.6 * beam)
    table = rows(measure(quiet[0], moved, OPTIONS, tmp_path / "moved"))
    assert table["quality"][0] & Quality.DISPLACED.value
    twin = one.assign(name="twin", ra_deg=one["ra_deg"] + 0.05 * beam * x_deg)
    table = rows(measure(quiet[0], pd.concat([one, twin]), OPTIONS, tmp_path / "twin"))
    assert (table["quality"] & Quality.CONFUSED.value).all()
    assert (table["quality"] & Quality.BLENDED.value).all()
    assert table["flux_jy"].sum() == pytest.approx(one["flux_jy"].iloc[0], rel=0.01)
    blank = one.assign(name="blank", dec_deg=16.6 + 1.78, ra_deg=80.3)
    table = rows(measure(quiet[0], blank, MeasureOptions(min_flux_jy=1e-6, min_beam=0.01), tmp_path / "blank"))
    assert table["quality"][0] & Quality.NEAR_EDGE.value
    assert table["quality"][0] & Quality.FAINT.value


def test_a_reference_frequency_elsewhere_gives_the_flux_there(quiet, field_catalog, tmp_path):
    table = rows(
        measure(quiet[0], field_catalog, MeasureOptions(min_flux_jy=1e-6, reference_frequency_hz=1.5e9), tmp_path)
    )
    expected = field_catalog["flux_jy"] * (1.5 / 1.4) ** field_catalog["spectral_index"]
    np.testing.assert_allclose(table["flux_jy"], expected, rtol=3e-3)


def test_a_truncated_companion_is_named(quiet, field_catalog, tmp_path):
    import dataclasses

    broken = tmp_path / "broken.residual.fits"
    broken.write_bytes(quiet[0].residual_path.read_bytes()[:100_000])
    with pytest.raises(CorruptFileError, match=r"broken\.residual\.fits"):
        measure(dataclasses.replace(quiet[0], residual_path=broken), field_catalog, OPTIONS, tmp_path)
