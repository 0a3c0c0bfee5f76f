"""A measured beam: an image and its fluxes follow the table, and carry it."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from dsa110_contimg.io.beams import beam_table, read_beam, write_beam
from dsa110_contimg.options import ImageOptions, MeasureOptions
from dsa110_contimg.science.beam import AIRY
from dsa110_contimg.stages.image import image
from dsa110_contimg.stages.measure import measure

OPTIONS = ImageOptions(n_pixels=1080, cell_arcsec=12.0)


@pytest.fixture
def airy_table(tmp_path):
    """The Airy pattern, as one would have measured it: what is simulated has that beam."""
    angle, frequency = np.linspace(0.0, 2.2, 23), np.array([1.32e9, 1.4e9, 1.48e9])
    power = AIRY.power(np.radians(angle), frequency[:, None])
    write_beam(tmp_path / "beam.ecsv", beam_table(angle, frequency, power, 0.01 * np.ones(power.shape)))
    return tmp_path / "beam.ecsv"


def ratios(sky, catalog, options, place, known=None):
    record = image(sky, options, place, known=known)
    path = measure(record, catalog, MeasureOptions(min_flux_jy=1e-6), place).path
    return record, Table.read(path, format="ascii.ecsv").to_pandas()


def test_a_table_of_the_true_beam_gives_the_true_fluxes(drifting_sky, field_catalog, airy_table, tmp_path):
    options = OPTIONS.model_copy(update={"beam_table": airy_table})
    sky = drifting_sky(field_catalog, noise=0.05)
    record, table = ratios(sky, field_catalog, options, tmp_path, known=field_catalog)
    np.testing.assert_allclose(table["ratio"], 1.0, atol=2e-3)
    # the same beam was in the prediction: nothing of the subtracted sources is left
    assert record.noise_jy == pytest.approx(0.05 * record.thermal_noise_jy, rel=0.1)
    np.testing.assert_array_equal(fits.getdata(record.pb_path, "BEAM")["power"], read_beam(airy_table)["power"])


def test_a_table_wider_by_a_twentieth_lowers_fluxes_by_its_ratio(drifting_sky, field_catalog, tmp_path):
    one = field_catalog.iloc[[1]].assign(spectral_index=0.0)
    angle, frequency = np.linspace(0.0, 2.2, 23), np.array([1.4e9])
    wide = type(AIRY)(AIRY.diameter_m / 1.05)
    power = wide.power(np.radians(angle), frequency[:, None])
    write_beam(tmp_path / "wide.ecsv", beam_table(angle, frequency, power, 0 * power))
    sky = drifting_sky(one, n_antennas=16)
    dirty = OPTIONS.model_copy(update={"max_iterations": 0})
    airy, plain = ratios(sky, one, dirty, tmp_path / "a")
    other, table = ratios(sky, one, dirty.model_copy(update={"beam_table": tmp_path / "wide.ecsv"}), tmp_path / "b")
    at = tuple(round(float(plain[f"{axis}_pixel"].iloc[0])) for axis in "yx")
    ratio = fits.getdata(airy.pb_path)[0, 0][at] / fits.getdata(other.pb_path)[0, 0][at]
    assert ratio < 0.99
    assert table["flux_jy"].iloc[0] / plain["flux_jy"].iloc[0] == pytest.approx(ratio, rel=2e-3)


def test_the_header_says_how_far_the_sun_was(drifting_sky, field_catalog, tmp_path):
    record = image(drifting_sky(field_catalog.iloc[:2], n_antennas=16), OPTIONS, tmp_path)
    header = fits.getheader(record.path)
    assert 0 < header["SUNELONG"] < 180
    noise, pb = (fits.getdata(tmp_path / f"{record.group_id}.{kind}.fits")[0, 0] for kind in ("noise", "pb"))
    assert noise[540, 540] * pb[540, 540] == pytest.approx(record.noise_jy, rel=1e-5)
