"""The same `image` and `measure` on visibilities that none of us made: a VLA field at 1.4 GHz of 2001."""

import numpy as np
import pandas as pd
import pytest
from astropy.coordinates import SkyCoord
from astropy.table import Table

from dsa110_contimg.io import casa, foreign
from dsa110_contimg.options import ImageOptions, MeasureOptions
from dsa110_contimg.settings import load_settings
from dsa110_contimg.stages.image import image
from dsa110_contimg.stages.measure import measure

KNOWN_NOISE_JY = 0.157e-3
NVSS = SkyCoord(["17h21m00.661s +59d26m49.96s", "17h22m36.698s +58d56m22.91s"])


@pytest.fixture(scope="module")
def vla():
    path = load_settings().validation_data / "vla"
    if not path.is_dir():
        pytest.skip(f"the validation data are not at {path}; DSA110_VALIDATION_DATA names the folder")
    return path


@pytest.fixture(scope="module")
def imaged(vla, tmp_path_factory):
    place = tmp_path_factory.mktemp("vla")
    casa.import_uvfits(vla / "C346R424_VLA_1400MHz_caldata.uvfits", place / "field.ms", workdir=place / "casa")
    views = foreign.open_foreign(place / "field.ms")
    # as the reference was made: 4096 x 1.25 arcsec, Briggs 0.5, mask at 6 sigma
    options = ImageOptions(n_pixels=4096, cell_arcsec=1.25, robust=0.5, mask_sigma=6.0)
    return image(views, options, place / "images")


def test_the_noise_is_the_known_one(imaged):
    assert imaged.noise_jy == pytest.approx(KNOWN_NOISE_JY, rel=0.2)


def test_the_beam_is_the_known_one(imaged):
    assert imaged.bmaj_deg * 3600 == pytest.approx(4.8, rel=0.1)
    assert imaged.bmin_deg * 3600 == pytest.approx(3.8, rel=0.1)


def test_both_nvss_sources_are_within_an_arcsecond(imaged, tmp_path):
    catalog = pd.DataFrame(
        {
            "name": ["J172100+592650", "J172236+585623"],
            "ra_deg": NVSS.ra.deg,
            "dec_deg": NVSS.dec.deg,
            "flux_jy": [0.066, 0.234],
            "flux_error_jy": 0.0,
            "spectral_index": -0.7,
            "spectral_index_error": 0.3,
            "origin": "NVSS",
        }
    )
    # the second lies beyond half power, near the first null: a position needs no beam
    record = measure(imaged, catalog, MeasureOptions(min_flux_jy=0.01, min_beam=1e-6), tmp_path)
    table = Table.read(record.path, format="ascii.ecsv")
    assert len(table) == 2
    offset = np.hypot(table["offset_ra_arcsec"], table["offset_dec_arcsec"])
    assert (np.asarray(offset) < 1.0).all()
