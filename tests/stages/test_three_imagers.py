"""One function, three imagers: the same products, and fluxes that agree."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.table import Table

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions, MeasureOptions
from dsa110_contimg.stages.image import image
from dsa110_contimg.stages.measure import measure

BASE = {"n_pixels": 640, "cell_arcsec": 16.0}
IMAGERS = ("native", "wsclean", "tclean")


def fluxes(record, catalog, place):
    options = MeasureOptions(min_flux_jy=1e-6)
    return Table.read(measure(record, catalog, options, place).path, format="ascii.ecsv").to_pandas()


@pytest.fixture(scope="module")
def made(drifting_sky, field_catalog, tmp_path_factory):
    """A drifting sky of eleven sources, known to 3 %, by each imager."""
    factor = np.where(np.arange(len(field_catalog)) % 2, 1.03, 0.97)
    wrong = field_catalog.assign(flux_jy=field_catalog["flux_jy"] * factor)
    # half of the band, for tclean's sake
    sky = drifting_sky(field_catalog, noise=0.5).isel(frequency=slice(24, 72))
    place = tmp_path_factory.mktemp("three")
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
        assert record.bmaj_deg == pytest.approx(native.bmaj_deg, rel=1e-3)
        assert record.noise_jy == pytest.approx(native.noise_jy, rel=0.05)
        assert record.ra_deg == native.ra_deg


def test_fluxes_agree_although_the_beam_drifts_over_the_sources(made, field_catalog, tmp_path):
    """Native predicts what drifts; the others see a catalogue wrong by 3 % drift through the beam, and clean it."""
    tables = {name: fluxes(made[name], field_catalog, tmp_path / name).set_index("source") for name in IMAGERS}
    native = tables["native"]
    names = native.index[(native["flux_raw_jy"] > 20 * native["local_noise_jy"]) & (native["beam_response"] > 0.5)]
    assert len(names) >= 5
    for name in IMAGERS:
        bright, ours = tables[name].loc[names], native.loc[names]
        assert abs(bright["ratio"].median() - 1) < 0.01, name
        sigma = bright["flux_error_jy"] / bright["flux_jy"]
        assert (np.abs(bright["ratio"] - 1) < np.maximum(0.01, 4 * sigma)).all(), name
        np.testing.assert_allclose(bright["flux_jy"], ours["flux_jy"], rtol=0.01, err_msg=name)
        apart = np.hypot(*(bright[f"offset_{axis}_arcsec"] - ours[f"offset_{axis}_arcsec"] for axis in ("ra", "dec")))
        assert apart.max() < 0.05 * made[name].bmin_deg * 3600, name
        # from the truth, a position is off by beam / (2 SNR), 2.5 % of the beam at 20 sigma; the largest of some
        off = np.hypot(bright["offset_ra_arcsec"], bright["offset_dec_arcsec"])
        assert off.max() < 0.1 * made[name].bmin_deg * 3600, name


@pytest.mark.parametrize("imager", ["native", "wsclean"])
@pytest.mark.parametrize("weighting", ["natural", "briggs"])
def test_the_noise_of_a_field_without_its_known_sources_is_the_radiometer_s(noise_of, weighting, imager):
    """What is left when catalogued sources are subtracted is noise, whatever the weights; nothing is cleaned out of it.

    With sources below the mask in it, natural weights make confusion of them, of a beam with sidelobes of a fifth.
    """
    assert 0.95 < noise_of(weighting, imager) < 1.10


@pytest.fixture(scope="module")
def noise_of(drifting_sky, field_catalog, tmp_path_factory):
    """Noise over the radiometer's, by weighting and imager, of a field whose sources are known."""
    sky, place = drifting_sky(field_catalog, noise=1.0), tmp_path_factory.mktemp("noise")

    def ratio(weighting, imager):
        record = image(sky, ImageOptions(imager=imager, weighting=weighting, **BASE), place, known=field_catalog)
        return record.noise_jy / record.thermal_noise_jy

    return ratio


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
