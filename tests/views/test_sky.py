"""An image as a figure, at a glance, and to look into: what is shown is what is in the file."""

from __future__ import annotations

import json
import re
import urllib.request
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from astropy.coordinates import SkyCoord
from astropy.io import fits as astropy_fits
from astropy.wcs import WCS
from bokeh.client import pull_session
from bokeh.document import Document
from bokeh.events import RangesUpdate, Tap
from bokeh.models import ColumnDataSource
from bokeh.models.widgets import Div
from bokeh.resources import INLINE
from hypothesis import given
from hypothesis import strategies as st

import dsa110_contimg as dc
from dsa110_contimg import views
from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.spot import spot_at
from dsa110_contimg.views.explore_image import ImageExplorer, Pyramid
from dsa110_contimg.views.skyplot import in_image, sky_plane

CELL, N, NOISE = 6.0 / 3600, 300, 5e-4
PLACES = ((100.3, 180.6, 0.4), (200.8, 90.2, 0.05))


def make(folder: Path, tier: str = "standard", channels: int = 1) -> xr.Dataset:
    """Two sources of index -1 and noise, a beam of 30 x 18 arcsec, in a primary beam of 0.5 everywhere."""
    y, x = np.mgrid[:N, :N]
    rng = np.random.default_rng(4)
    hertz = 1.4e9 + 5e7 * np.arange(channels)
    sky = NOISE * rng.normal(size=(channels, N, N))
    for column, row, flux in PLACES:
        shape = np.exp(-4 * np.log(2) * (((x - column) * 6 / 30) ** 2 + ((y - row) * 6 / 18) ** 2))
        sky += flux * (hertz / 1.4e9)[:, None, None] ** -1 * shape
    header = astropy_fits.Header()
    for i, (kind, value, step, pixel, unit) in enumerate(
        (
            ("RA---SIN", 80.0, -CELL, N // 2 + 1, "deg"),
            ("DEC--SIN", 16.0, CELL, N // 2 + 1, "deg"),
            ("FREQ", 1.4e9, 5e7, 1, "Hz"),
            ("STOKES", 1, 1, 1, ""),
        ),
        start=1,
    ):
        header[f"CTYPE{i}"], header[f"CRVAL{i}"], header[f"CDELT{i}"] = kind, value, step
        header[f"CRPIX{i}"], header[f"CUNIT{i}"] = pixel, unit
    header["BMAJ"], header["BMIN"], header["BPA"] = 30 / 3600, 18 / 3600, 90.0
    header["BUNIT"], header["RADESYS"], header["TIER"], header["OBJECT"] = "JY/BEAM", "ICRS", tier, "a group"
    astropy_fits.writeto(folder / "g.image.fits", sky[None].astype(">f4"), header)
    if channels == 1:
        astropy_fits.writeto(folder / "g.pb.fits", np.full((1, 1, N, N), 0.5, ">f4"), header)
    return dc.open_image(folder / "g.image.fits")


def catalogue(img: xr.Dataset) -> pd.DataFrame:
    """The two sources, one too faint to be seen, one outside, one on the other side of the sky."""
    wcs = WCS(astropy_fits.Header.fromstring(img.attrs["wcs"]))
    places = (*((x, y) for x, y, _ in PLACES), (50.0, 50.0), (500.0, 50.0))
    ra, dec = wcs.wcs_pix2world(*np.array(places).T, 0)
    ra, dec = np.append(ra, (ra[0] + 180) % 360), np.append(dec, -dec[0])
    names, flux = ["A", "B", "faint", "outside", "behind"], [0.8, 0.1, 0.001, 1.0, 1.0]
    return pd.DataFrame({"name": names, "ra_deg": ra, "dec_deg": dec, "flux_jy": flux, "spectral_index": -1.0})


@pytest.fixture
def img(tmp_path: Path) -> xr.Dataset:
    return make(tmp_path)


def text_of(figure: object) -> str:
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


def test_the_figure_has_the_beam_and_the_sources_that_should_be_seen(img: xr.Dataset) -> None:
    figure = img.dsa.plot(catalogue(img))
    figure.savefig(BytesIO(), dpi=40)
    text = text_of(figure)
    assert "beam 30.0″ × 18.0″" in text
    assert {"A", "B"} <= set(text.split())
    assert not {"faint", "outside", "behind"} & set(text.split())
    assert "NON-SCIENCE" not in text


def test_sources_are_chosen_through_the_beam(img: xr.Dataset) -> None:
    chosen = in_image(img, sky_plane(img), catalogue(img))
    assert list(chosen["source"]) == ["A", "B"]
    np.testing.assert_allclose(chosen["x"], [x for x, _, _ in PLACES], atol=1e-6)


def test_a_development_image_is_stamped_wherever_it_is_shown(tmp_path: Path) -> None:
    img = make(tmp_path, tier="development")
    assert "NON-SCIENCE" in text_of(img.dsa.plot())
    assert "NON-SCIENCE" in img.dsa._repr_html_()
    assert "NON-SCIENCE" in ImageExplorer(img).to_html()


def test_the_glance_says_what_is_known_and_what_is_not(img: xr.Dataset) -> None:
    text = img.dsa._repr_html_()
    assert "30.00″ × 18.00″" in text
    assert "1400.00 MHz" in text
    assert "<dt>Time (UTC)</dt><dd>not known</dd>" in text
    assert repr(img.dsa).startswith("<dsa: image of a group")


def test_a_plane_that_is_not_there_is_refused(img: xr.Dataset) -> None:
    with pytest.raises(InputError, match="no such plane"):
        img.dsa.plot(variable="MODEL")
    with pytest.raises(InputError, match="no such frequency"):
        img.dsa.plot(frequency=3)


def test_a_spot_is_the_source_with_its_flux_and_noise(img: xr.Dataset) -> None:
    values = sky_plane(img).values
    for x, y, flux in PLACES:
        spot = spot_at(values, x + 2, y - 1, 5.0)
        assert spot is not None
        # the noise moves a peak by about noise / flux of a beam; the parabola is true to some hundredths of a pixel
        assert (spot.x, spot.y) == pytest.approx((x, y), abs=0.1)
        assert spot.peak == pytest.approx(flux, abs=5 * NOISE + 0.005 * flux)
        # 3000 pixels tell an rms to 1.3 %
        assert spot.noise == pytest.approx(NOISE, rel=0.08)


def test_there_is_no_spot_where_the_image_is_blank() -> None:
    assert spot_at(np.full((40, 40), np.nan, np.float32), 20, 20, 5) is None
    assert spot_at(np.zeros((40, 40), np.float32), 400, 20, 5) is None


@given(
    st.tuples(st.floats(-50, 1300), st.floats(-50, 1300)),
    st.tuples(st.floats(-50, 1300), st.floats(-50, 1300)),
)
def test_a_view_holds_what_is_asked_for_and_fits_the_screen(x: tuple[float, float], y: tuple[float, float]) -> None:
    pyramid = Pyramid(np.ones((1100, 1200), np.float32), screen=100)
    values, (left, low, width, height) = pyramid.view(x, y, 100)
    size = width / values.shape[1]
    assert values.size
    assert max(values.shape) <= 100 * np.sqrt(2) + 3
    for (a, b), begin, extent, n in ((sorted(x), left, width, 1200), (sorted(y), low, height, 1100)):
        if b > 0 and a < n - 1:
            whole = n // size * size - 0.5  # halved copies lose what is left over
            assert begin <= max(a, -0.5) + 1e-9
            assert begin + extent >= min(b, whole) - 1e-9


def test_halved_copies_are_means_of_what_is_not_blank() -> None:
    values = np.arange(64.0, dtype=np.float32).reshape(8, 8)
    values[0, 0] = np.nan
    small = Pyramid(values, screen=4).levels[1]
    assert small[0, 0] == pytest.approx((1 + 8 + 9) / 3)
    assert small[1, 1] == pytest.approx(values[2:4, 2:4].mean())


def test_a_click_tells_flux_name_and_place(img: xr.Dataset) -> None:
    explorer = ImageExplorer(img, catalogue(img))
    found = explorer.at(PLACES[0][0] + 4, PLACES[0][1])
    assert found is not None
    assert (found.name, found.response) == ("A", 0.5)
    assert found.flux_jy == pytest.approx(0.8, rel=0.01)
    assert found.flux_jy / found.catalog_flux_jy == pytest.approx(1.0, rel=0.01)
    assert found.separation_arcsec < 1.0
    truth = SkyCoord(*catalogue(img).loc[0, ["ra_deg", "dec_deg"]], unit="deg")
    assert truth.separation(SkyCoord(found.ra_deg, found.dec_deg, unit="deg")).arcsec < 1.0
    empty = explorer.at(50, 250)
    assert empty is not None
    assert empty.name == ""
    assert np.isnan(empty.catalog_flux_jy)


def test_a_cube_gives_the_spectrum(tmp_path: Path) -> None:
    explorer = ImageExplorer(make(tmp_path, channels=3))
    found = explorer.at(*PLACES[0][:2])
    assert found is not None
    for hertz, flux, error in found.spectrum:
        assert flux == pytest.approx(0.4 * (hertz / 1.4e9) ** -1, abs=5 * error + 0.002)
    assert [hertz for hertz, _, _ in found.spectrum] == [1.4e9, 1.45e9, 1.5e9]


def test_zooming_and_clicking_draw_anew(img: xr.Dataset) -> None:
    explorer = ImageExplorer(img, catalogue(img))
    document = Document()
    document.add_root(explorer.panels())
    panel = document.roots[0].children[0].children[0]
    assert panel.lod_timeout <= 100  # what bokeh waits after the wheel before it tells us
    source = document.select_one({"name": "image", "type": ColumnDataSource})
    panel._trigger_event(RangesUpdate(panel, x0=90.0, x1=110.0, y0=170.0, y1=190.0))
    assert source.data["value"][0].shape == (21, 21)
    expected = sky_plane(img).values[170:191, 90:111] * 1e3
    np.testing.assert_allclose(source.data["value"][0], expected, rtol=1e-6)
    panel._trigger_event(Tap(panel, x=PLACES[1][0], y=PLACES[1][1]))
    assert "<b>B</b>" in document.select_one({"name": "chosen", "type": Div}).text
    cutout = document.select_one({"name": "cutout", "type": ColumnDataSource})
    assert np.argmax(cutout.data["shade"][0]) == cutout.data["shade"][0].size // 2
    explorer._plane.values[:] = np.nan
    panel._trigger_event(Tap(panel, x=5.0, y=5.0))
    assert "blank" in document.select_one({"name": "chosen", "type": Div}).text


def test_the_live_view_is_served_and_its_page_finds_it(img: xr.Dataset) -> None:
    explorer = img.dsa.plot.explore(catalog=False)
    shown = explorer._repr_html_()
    try:
        assert shown.startswith("<iframe")
        assert json.dumps(explorer.url) in explorer.to_html()
        with urllib.request.urlopen(explorer.url, timeout=10) as answer:
            assert answer.status == 200
        session = pull_session(url=explorer.url)
        source = session.document.select_one({"name": "image", "type": ColumnDataSource})
        assert source.data["shade"][0].shape == (N, N)
        session.close()
    finally:
        explorer.close()


def test_a_page_that_looks_for_the_live_view_keeps_its_scripts_whole(img: xr.Dataset) -> None:
    """Bokeh's own scripts hold ``</body>`` in strings: what is put in there leaves a page without its panels."""
    explorer = ImageExplorer(img)
    explorer.serve()
    try:
        page = explorer.to_html()
    finally:
        explorer.close()
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL)
    assert {text.strip() for text in INLINE.js_raw if "</body>" in text} <= {text.strip() for text in scripts}
    assert page.count(f"fetch({json.dumps(explorer.url)}") == 1
    assert page.index("fetch(" + json.dumps(explorer.url)) > page.rindex("</div>")


def test_a_port_that_is_taken_is_an_error(img: xr.Dataset) -> None:
    one, other = ImageExplorer(img), ImageExplorer(img)
    try:
        port = int(one.serve().rstrip("/").rpartition(":")[2])
        with pytest.raises(InputError, match="cannot be served"):
            other.serve(port)
    finally:
        one.close()
    assert views.image_explorer(img).at(*PLACES[0][:2]) is not None


def test_shades_are_those_of_the_scale_and_blank_is_none(img: xr.Dataset) -> None:
    explorer = ImageExplorer(img, catalogue(img))
    n = img.sizes["l"]
    shown = explorer.seen((-0.5, n - 0.5), (-0.5, n - 0.5))
    shade, value = shown["shade"][0], shown["value"][0]
    expected = 1 + np.clip(np.asarray(explorer._norm(value.astype(np.float64))), 0, 1) * 254
    good = np.isfinite(value)
    assert good.any()
    np.testing.assert_allclose(shade[good], expected[good], atol=1.0)
    explorer._plane.values[:9, :9] = np.nan
    assert (explorer.seen((-0.5, 4.5), (-0.5, 4.5))["shade"][0] == 0).all()
