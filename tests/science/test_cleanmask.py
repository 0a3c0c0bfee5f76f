"""Masks: discs where the catalogue's sources are, files of one's own, and radler's reading of them."""

import numpy as np
import pytest
from astropy.io import fits
from astropy.wcs import WCS

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.science.beam import AIRY
from dsa110_contimg.science.cleanmask import as_file, catalog_mask, given_mask
from dsa110_contimg.science.grid import SkyGrid
from dsa110_contimg.science.response import Response
from dsa110_contimg.science.subtraction import PointSources

RA, DEC, N, CELL = 1.4, np.radians(16.6), 256, np.radians(30 / 3600)
GRID = SkyGrid(N, CELL, RA, DEC)
BEAM = np.radians(80 / 3600)
RESPONSE = Response(np.array([RA]), np.array([DEC]), np.array([1.4e9]), np.ones((1, 1)), AIRY)


def sources(pixels, flux):
    ra, dec = GRID.sky(*np.transpose(pixels).astype(float))
    return PointSources(ra, dec, np.asarray(flux, float), np.zeros(len(flux)))


def test_a_catalogue_s_mask_holds_what_is_within_a_beam_of_its_sources_and_no_more():
    places = [(128, 128), (40, 200), (90.4, 60.7)]
    mask = catalog_mask(sources(places, [1.0, 1.0, 1.0]), RESPONSE, GRID, 0.01, BEAM)
    y, x = np.indices((N, N))
    distance = np.min([np.hypot(x - p[0], y - p[1]) for p in places], axis=0)
    np.testing.assert_array_equal(mask, distance <= BEAM / CELL)


def test_a_source_counts_by_what_the_beam_leaves_of_it():
    # 1.06 deg from the centre the beam leaves 0.65
    bright, faint = sources([(128, 255)], [0.0160]), sources([(128, 255)], [0.0150])
    assert catalog_mask(bright, RESPONSE, GRID, 0.01, BEAM)[255, 128]
    with pytest.raises(ImagingError, match="no source to clean"):
        catalog_mask(faint, RESPONSE, GRID, 0.01, BEAM)


def test_discs_are_cut_by_the_edge_and_sources_outside_are_left_out():
    mask = catalog_mask(sources([(0, 0), (300, 128), (-1, 255.5)], [9.0] * 3), RESPONSE, GRID, 0.01, BEAM)
    assert mask[0, 0]
    assert mask[255, 0]
    assert not mask[:, 100:].any()
    elsewhere = PointSources(np.array([RA + np.pi]), np.array([-DEC]), np.array([100.0]), np.zeros(1))
    with pytest.raises(ImagingError, match="no source to clean"):
        catalog_mask(elsewhere, RESPONSE, GRID, 0.0, BEAM)


def test_a_disc_smaller_than_a_pixel_holds_its_pixel():
    assert catalog_mask(sources([(50.4, 70.4)], [1.0]), RESPONSE, GRID, 0.01, CELL / 100)[70, 50]


def header(**changes):
    wcs = WCS(naxis=2)
    wcs.wcs.ctype, wcs.wcs.crpix = ["RA---SIN", "DEC--SIN"], [N // 2 + 1] * 2
    wcs.wcs.crval, wcs.wcs.cdelt = np.degrees([RA, DEC]), np.degrees([-CELL, CELL])
    out = wcs.to_header()
    for key, value in changes.items():
        out[key] = value
    return out


def test_a_given_mask_is_taken_where_it_is_not_zero():
    plane = np.zeros((N, N), np.float32)
    plane[3, 4], plane[5, 6], plane[7, 8] = 1.0, -2.0, np.nan
    np.testing.assert_array_equal(np.argwhere(given_mask(plane, header(), GRID)), [[3, 4], [5, 6]])
    # angles that are not corrected for aberration are no reason to refuse it
    given_mask(plane, header(CDELT1=-np.degrees(CELL) * 1.0001, CDELT2=np.degrees(CELL) * 1.0001), GRID)


@pytest.mark.parametrize(
    ("changes", "size", "message"),
    [
        ({}, N - 2, "another size"),
        ({"CRVAL2": np.degrees(DEC + CELL)}, N, "another grid"),
        ({"CRPIX1": N // 2 + 2.0}, N, "another grid"),
        ({"CDELT1": np.degrees(CELL)}, N, "another grid"),
        ({"CDELT2": np.degrees(CELL) * 1.01}, N, "another grid"),
    ],
)
def test_a_mask_of_another_grid_is_refused(changes, size, message):
    with pytest.raises(ImagingError, match=message):
        given_mask(np.ones((size, size), np.float32), header(**changes), GRID)


def test_a_mask_without_a_grid_or_without_a_pixel_is_refused():
    with pytest.raises(ImagingError, match="does not say where"):
        given_mask(np.ones((N, N), np.float32), fits.Header(), GRID)
    with pytest.raises(ImagingError, match="nothing to clean"):
        given_mask(np.zeros((N, N), np.float32), header(), GRID)


def test_the_file_for_other_programs_holds_the_mask_and_goes_away():
    mask = np.zeros((N, N), bool)
    mask[3, 200] = True
    with as_file(mask) as path:
        np.testing.assert_array_equal(fits.getdata(path)[0, 0] != 0, mask)
    assert not path.exists()
    with as_file(None) as path:
        assert path is None
