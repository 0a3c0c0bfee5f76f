"""One function, three imagers: the same products, and fluxes that agree."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions, MeasureOptions
from dsa110_contimg.stages.image import image
from dsa110_contimg.stages.measure import measure

BASE = {"n_pixels": 900, "cell_arcsec": 12.0}
IMAGERS = ("native", "wsclean", "tclean")


def fluxes(record, catalog, place):
    options = MeasureOptions(min_flux_jy=1e-6)
    return Table.read(measure(record, catalog, options, place).path, format="ascii.ecsv").to_pandas()


@pytest.fixture(scope="module")
def made(drifting_sky, field_catalog, tmp_path_factory):
    """A drifting sky of eleven sources, known to 3 %, by each imager."""
    factor = np.where(np.arange(len(field_catalog)) % 2, 1.03, 0.97)
    wrong = field_catalog.assign(flux_jy=field_catalog["flux_jy"] * factor)
    sky, place = drifting_sky(field_catalog, noise=0.5), tmp_path_factory.mktemp("three")
    return {
        name: image(sky, ImageOptions(imager=name, **BASE), place / name, known=wrong, work_dir=place)
        for name in IMAGERS
    }


def test_products_are_the_same_whoever_made_them(made):
    native = made["native"]
    kinds = sorted(path.name for path in native.path.parent.iterdir())
    for name in IMAGERS:
        record = made[name]
        assert record.imager == name
        assert fits.getheader(record.path)["IMAGER"] == name
        assert sorted(path.name for path in record.path.parent.iterdir()) == kinds
        assert record.bmaj_deg == pytest.approx(native.bmaj_deg, rel=0.02)
        assert record.noise_jy == pytest.approx(native.noise_jy, rel=0.1)
        assert record.ra_deg == native.ra_deg


def test_fluxes_agree_although_the_beam_drifts_over_the_sources(made, field_catalog, tmp_path):
    """Native predicts what drifts; the others see a catalogue wrong by 3 % drift through the beam, and clean it."""
    tables = {name: fluxes(made[name], field_catalog, tmp_path / name) for name in IMAGERS}
    for name in IMAGERS:
        table = tables[name]
        bright = table[(table["flux_raw_jy"] > 20 * table["local_noise_jy"]) & (table["beam_response"] > 0.5)]
        assert len(bright) >= 5
        assert abs(bright["ratio"].median() - 1) < 0.01, name
        off = np.hypot(bright["offset_ra_arcsec"], bright["offset_dec_arcsec"])
        # a position is good to beam / (2 SNR), 2.5 % of the beam at 20 sigma; the largest of some
        assert off.max() < 0.1 * made[name].bmin_deg * 3600, name


def test_no_imager_leaves_anything_behind(made):
    place = made["native"].path.parent.parent
    assert {path.name for path in place.iterdir()} == set(IMAGERS)


def test_what_an_imager_does_not_do_is_said_before_it_starts(drifting_sky, field_catalog, tmp_path):
    sky = drifting_sky(field_catalog[:1], n_antennas=8)
    with pytest.raises(ImagingError, match="wsclean does not do uvrange in metres"):
        image(sky, ImageOptions(imager="wsclean", uvrange=">50m", **BASE), tmp_path)
    with pytest.raises(ImagingError, match="gridder mosaic needs a primary beam"):
        image(sky, ImageOptions(imager="tclean", tclean_gridder="mosaic", **BASE), tmp_path)
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".fits"]
