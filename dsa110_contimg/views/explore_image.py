"""Looking into an image: bokeh panels that the kernel draws anew, in the pixels of the screen, whenever one zooms.

A browser cannot hold 4096 x 4096 pixels and stay fluid. So it never gets them: a small server beside the kernel keeps
the image in halved copies, and sends what the view holds at the resolution that it can show. What stands in a page
where no kernel answers is the first view, whole, with its coordinates under the cursor.
"""

from __future__ import annotations

import asyncio
import html
import json
import socket
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.embed import file_html
from bokeh.events import MouseMove, RangesUpdate, Tap
from bokeh.layouts import column, row
from bokeh.models import ColumnDataSource, CustomJS, FixedTicker, LinearColorMapper, Range1d
from bokeh.models.widgets import Div
from bokeh.plotting import figure
from bokeh.resources import INLINE
from bokeh.server.server import Server
from matplotlib.colors import to_hex
from numpy.typing import NDArray
from tornado.ioloop import IOLoop

from dsa110_contimg.exceptions import InputError
from dsa110_contimg.science.spot import Spot, spot_at
from dsa110_contimg.views import style
from dsa110_contimg.views.image import asinh_ticks
from dsa110_contimg.views.interactive import at_the_end
from dsa110_contimg.views.skyplot import NON_SCIENCE, in_image, noise_of, sky_plane

SCREEN = 680
"""Pixels of the view on a side."""
_SETTLED_MS = 100
"""The wheel must rest for so long before the kernel is asked; with bokeh's 500 most of the wait was this."""
_SHADES = 255
_NODES = 65
"""Of the sky on a side of the image, for the cursor: straight lines between them are true to 0.03 arcsec over 4 deg."""
_READOUT = """
const nx = grid.nx, ny = grid.ny, n = grid.n;
const fx = Math.min(Math.max((cb_obj.x + 0.5) / nx, 0), 1) * (n - 1);
const fy = Math.min(Math.max((cb_obj.y + 0.5) / ny, 0), 1) * (n - 1);
const i = Math.min(Math.floor(fx), n - 2), j = Math.min(Math.floor(fy), n - 2), a = fx - i, b = fy - j;
const at = (k) => { const v = source.data[k];
  return (v[j*n+i]*(1-a) + v[j*n+i+1]*a)*(1-b) + (v[(j+1)*n+i]*(1-a) + v[(j+1)*n+i+1]*a)*b; };
const p = ['px', 'py', 'pz'].map(at), r = Math.hypot(...p);
const sexa = (v, d) => { const f = 3600*Math.pow(10, d), s = Math.round(Math.abs(v)*f)/f, h = Math.floor(s + 1e-12);
  const m = Math.floor((s - h)*60 + 1e-9), q = Math.max(0, (s - h)*3600 - m*60);
  return String(h).padStart(2, '0') + ':' + String(m).padStart(2, '0') + ':' + q.toFixed(d).padStart(d + 3, '0'); };
let where = 'outside the sky';
if (r > 0) { const ra = ((Math.atan2(p[1], p[0])*12/Math.PI) + 24) % 24, dec = Math.asin(p[2]/r)*180/Math.PI;
  where = sexa(ra, 2) + ' ' + (dec < 0 ? '-' : '+') + sexa(dec, 1); }
const d = image.data, w = d.dw[0], h = d.dh[0], z = d.value[0];
const rows = d.rows[0], cols = d.cols[0];
const c = Math.floor((cb_obj.x - d.x[0])/w*cols), l = Math.floor((cb_obj.y - d.y[0])/h*rows);
let value = '';
if (c >= 0 && c < cols && l >= 0 && l < rows) { const v = z[l*cols + c];
  value = isFinite(v) ? v.toPrecision(4) + ' ' + grid.unit : 'blank'; }
div.text = '<b>' + where + '</b> ' + grid.frame + ' &nbsp; pixel ' + cb_obj.x.toFixed(1) + ', ' + cb_obj.y.toFixed(1) +
  ' &nbsp; ' + value;
"""


class Pyramid:
    """An image and its halved copies, means of the pixels that are not blank.

    Attributes
    ----------
    levels : ``[y, x]`` each, from the image itself down to about a screen.
    """

    def __init__(self, values: NDArray[np.float32], screen: int = SCREEN) -> None:
        self.levels = [values]
        while min(self.levels[-1].shape) >= screen:
            self.levels.append(_halved(self.levels[-1]))

    def view(
        self, x: tuple[float, float], y: tuple[float, float], screen: int = SCREEN
    ) -> tuple[NDArray[np.float32], tuple[float, float, float, float]]:
        """What lies between two x and two y (pixels of the image, from 0), about as fine as the screen.

        Returns
        -------
        values : ``[y, x]``; 0.7 to 1.4 values for a pixel of the screen, where the image has so many.
        place : x, y of the lower left corner, width and height (pixels of the image; pixel 0 begins at -0.5).
        """
        n_y, n_x = self.levels[0].shape
        edges = [
            (min(max(low + 0.5, 0.0), n - 1.0), min(max(high + 0.5, 1.0), float(n)))
            for (low, high), n in ((sorted(x), n_x), (sorted(y), n_y))
        ]
        span = max(high - low for low, high in edges)
        level = int(np.clip(np.rint(np.log2(max(span / screen, 1.0))), 0, len(self.levels) - 1))
        size = 2**level
        cut = []
        for (low, high), n in zip(edges, self.levels[level].shape[::-1], strict=True):
            begin = min(int(low // size), n - 1)  # halved copies lose what is left over at the end
            cut.append(slice(begin, max(int(-(-high // size)), begin + 1)))
        values = self.levels[level][cut[1], cut[0]]
        place = (cut[0].start * size - 0.5, cut[1].start * size - 0.5, values.shape[1] * size, values.shape[0] * size)
        return values, place


def _halved(values: NDArray[np.float32]) -> NDArray[np.float32]:
    n_y, n_x = (n // 2 for n in values.shape)
    blocks = values[: 2 * n_y, : 2 * n_x].reshape(n_y, 2, n_x, 2)
    good = np.isfinite(blocks)
    if good.all():
        return np.asarray(blocks.mean(axis=(1, 3)), np.float32)
    number = good.sum(axis=(1, 3))
    total = np.where(good, blocks, np.float32(0)).sum(axis=(1, 3))
    return np.where(number > 0, total / np.maximum(number, 1), np.float32(np.nan)).astype(np.float32)


@dataclass(frozen=True)
class Chosen:
    """What was clicked: the peak, the catalogue source it is, and fluxes by frequency.

    Attributes
    ----------
    ra_deg, dec_deg : of the peak, in the image's frame.
    flux_jy, error_jy : corrected for the primary beam where it is known (``response``).
    name, catalog_flux_jy, separation_arcsec : of the nearest catalogue source within two beams; empty and NaN if none.
    spectrum : (frequency in Hz, flux, error) of each plane of a cube.
    """

    spot: Spot
    ra_deg: float
    dec_deg: float
    flux_jy: float
    error_jy: float
    response: float
    name: str = ""
    catalog_flux_jy: float = float("nan")
    spectral_index: float = float("nan")
    separation_arcsec: float = float("nan")
    spectrum: tuple[tuple[float, float, float], ...] = field(default=())


class ImageExplorer:
    """An image in a notebook: wheel and mouse zoom and move, a click tells what is there.

    Attributes
    ----------
    chosen : what was clicked last, or None.
    url : where the live view is, once it was shown.
    """

    def __init__(self, img: xr.Dataset, sources: pd.DataFrame | None = None) -> None:
        self._img = img
        self._plane = sky_plane(img)
        self._sigma = noise_of(img, self._plane.values)
        self._sources = None if sources is None else in_image(img, self._plane, sources)
        self._response = sky_plane(img, "PRIMARY_BEAM").values if "PRIMARY_BEAM" in img else None
        self._pyramid = Pyramid(self._plane.values)
        unit = str(img["SKY"].attrs.get("units", ""))
        self._is_flux = unit.upper().replace(" ", "") == "JY/BEAM"
        self._unit, self._scale = ("mJy/beam", 1e3) if self._is_flux else (unit or "(unit not known)", 1.0)
        top = np.nanmax(self._plane.values) if np.isfinite(self._plane.values).any() else 1.0
        self._norm = style.sky_norm(self._sigma * self._scale, float(top) * self._scale)
        cell = float(np.sqrt(np.abs(np.linalg.det(self._plane.wcs.pixel_scale_matrix))))
        beam = float(img.attrs["beam_deg"][0])
        self._reach = max(2.0, beam / cell) if np.isfinite(beam) else 5.0
        self._server: _Live | None = None
        self.chosen: Chosen | None = None
        self.url = ""

    # ---- what is there ----------------------------------------------------------------------------------------------

    def at(self, x: float, y: float) -> Chosen | None:
        """What is within a beam of a place (pixels from 0): a catalogue source's own place, or the highest peak.

        None where the image is blank.
        """
        near = self._nearest(x, y)
        place = (x, y) if near is None else (float(near["x"]), float(near["y"]))
        spot = spot_at(self._plane.values, place[0], place[1], self._reach)
        if spot is None:
            return None
        response = 1.0
        if self._response is not None:
            response = float(self._response[round(spot.y), round(spot.x)])
        ra, dec = (float(v) for v in self._plane.wcs.wcs_pix2world(spot.x, spot.y, 0))
        told: dict[str, Any] = {}
        if near is not None:
            east = ((float(near["ra_deg"]) - ra + 180) % 360 - 180) * np.cos(np.radians(dec))
            told = {
                "name": str(near["source"]),
                "catalog_flux_jy": float(near["catalog_flux_jy"]),
                "spectral_index": float(near.get("spectral_index", float("nan"))),
                "separation_arcsec": float(np.hypot(east, float(near["dec_deg"]) - dec)) * 3600.0,
            }
        flux, error = (value / response if response > 0 else float("nan") for value in (spot.peak, spot.noise))
        return Chosen(spot, ra, dec, flux, error, response, spectrum=self._spectrum(spot, response), **told)

    def _nearest(self, x: float, y: float) -> pd.Series | None:
        if self._sources is None or not len(self._sources):
            return None
        distance = np.hypot(self._sources["x"] - x, self._sources["y"] - y).to_numpy()
        nearest = int(distance.argmin())
        return self._sources.iloc[nearest] if distance[nearest] <= 2 * self._reach else None

    def _spectrum(self, spot: Spot, response: float) -> tuple[tuple[float, float, float], ...]:
        """Of a cube, the peak within a pixel of the spot in each plane."""
        hertz = self._img["frequency"].values
        found = []
        for number in range(hertz.size if hertz.size > 1 else 0):
            one = spot_at(sky_plane(self._img, frequency=number).values, spot.x, spot.y, 1.5)
            if one is not None:
                found.append((float(hertz[number]), one.peak / response, one.noise / response))
        return tuple(found)

    # ---- panels -----------------------------------------------------------------------------------------------------

    def panels(self, live: bool = True) -> Any:
        """The bokeh layout; ``live`` draws anew as one zooms and answers clicks, and needs a server."""
        n_y, n_x = self._plane.values.shape
        tools = "pan,wheel_zoom,box_zoom,reset,save" + (",tap" if live else "")
        panel: Any = figure(
            title=self._title(), width=SCREEN + 90, height=SCREEN, tools=tools, active_scroll="wheel_zoom",
            match_aspect=True, lod_timeout=_SETTLED_MS,
            x_axis_label="x (pixels, west)", y_axis_label="y (pixels, north)",
            x_range=Range1d(start=-0.5, end=n_x - 0.5), y_range=Range1d(start=-0.5, end=n_y - 0.5),
        )  # fmt: skip
        panel.toolbar.logo = None
        panel.grid.visible = False
        panel.background_fill_color = style.INK
        source = ColumnDataSource(self.seen((-0.5, n_x - 0.5), (-0.5, n_y - 0.5)), name="image")
        palette = [to_hex(c) for c in style.SKY_MAP(np.linspace(0, 1, _SHADES))]
        mapper = LinearColorMapper(palette=[style.INK, *palette], low=0, high=_SHADES)
        shown = panel.image(image="shade", x="x", y="y", dw="dw", dh="dh", source=source, color_mapper=mapper)
        self._bar(panel, shown)
        if self._sources is not None and len(self._sources):
            marks = ColumnDataSource({name: self._sources[name].to_numpy() for name in ("x", "y")})
            circles = panel.scatter(
                "x", "y", source=marks, size=16, fill_color=None, line_color=style.SKY, line_alpha=0.9
            )
            circles.nonselection_glyph = None  # a click selects one, and would fade the others
        cursor = Div(text="Point at the image.", width=SCREEN, height=22, name="cursor")
        panel.js_on_event(MouseMove, self._cursor(source, cursor))
        if not live:
            return column(panel, cursor)
        side = _Side(self)
        panel.on_event(RangesUpdate, lambda event: self._redraw(source, event))
        panel.on_event(Tap, lambda event: side.show(event.x, event.y))
        return row(column(panel, cursor), side.layout, sizing_mode="stretch_width")

    def seen(self, x: tuple[float, float], y: tuple[float, float]) -> dict[str, list[Any]]:
        """What is drawn of the image between two x and two y (pixels): columns of a bokeh source."""
        values, (left, low, width, height) = self._pyramid.view(x, y)
        scaled = values * np.float32(self._scale)
        # as self._norm has it, which takes ten times as long: in double precision, with masks
        width_of_linear = np.float32(self._norm.linear_width)
        ends = np.arcsinh(np.array([self._norm.vmin, self._norm.vmax], np.float32) / width_of_linear)
        shade = np.arcsinh(scaled / width_of_linear)
        shade -= ends[0]
        shade *= (_SHADES - 1) / (ends[1] - ends[0])
        np.clip(shade, 0, _SHADES - 1, out=shade)
        shade += 1
        shade = np.nan_to_num(shade, copy=False, nan=0.0).astype(np.uint8)
        columns = {"shade": shade, "value": np.ascontiguousarray(scaled), "x": left, "y": low, "dw": width}
        columns |= {"dh": height, "rows": values.shape[0], "cols": values.shape[1]}
        return {name: [value] for name, value in columns.items()}

    def _redraw(self, source: ColumnDataSource, event: RangesUpdate) -> None:
        if event.x0 is None or event.x1 is None or event.y0 is None or event.y1 is None:
            return
        source.data = self.seen((event.x0, event.x1), (event.y0, event.y1))

    def _title(self) -> str:
        tier = f"  {NON_SCIENCE} (tier development)" if self._img.attrs.get("tier") == "development" else ""
        hertz = float(self._img["frequency"].values[0])
        parts = [str(self._img.attrs.get("group_id") or ""), f"{hertz / 1e9:.3f} GHz" if np.isfinite(hertz) else ""]
        return ", ".join(part for part in parts if part) + tier

    def _bar(self, panel: Any, shown: Any) -> None:
        low, high = float(self._norm.vmin or 0.0), float(self._norm.vmax or 1.0)
        labels = {1 + float(self._norm(tick)) * (_SHADES - 1): f"{tick:g}" for tick in asinh_ticks(low, high)}
        bar = shown.construct_color_bar(title=self._unit, width=10, title_text_font_size="11px", padding=4)
        bar.ticker = FixedTicker(ticks=list(labels))
        bar.major_label_overrides = labels
        panel.add_layout(bar, "right")

    def _cursor(self, source: ColumnDataSource, div: Div) -> CustomJS:
        """Right ascension, declination and value under the cursor, without asking the kernel."""
        n_y, n_x = self._plane.values.shape
        x, y = np.meshgrid(np.linspace(-0.5, n_x - 0.5, _NODES), np.linspace(-0.5, n_y - 0.5, _NODES))
        ra, dec = (np.radians(v) for v in self._plane.wcs.wcs_pix2world(x.ravel(), y.ravel(), 0))
        vector = (np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec))
        nodes = ColumnDataSource(dict(zip(("px", "py", "pz"), vector, strict=True)))
        frame = str(self._img.attrs.get("frame") or "").upper()
        grid = {"nx": n_x, "ny": n_y, "n": _NODES, "unit": self._unit, "frame": frame}
        return CustomJS(args={"source": nodes, "image": source, "div": div, "grid": grid}, code=_READOUT)

    # ---- showing ----------------------------------------------------------------------------------------------------

    def serve(self, port: int = 0, host: str = "localhost", *, origins: tuple[str, ...] = ()) -> str:
        """Start the server of the live view, once; its address.

        Parameters
        ----------
        port : 0 takes a free one.
        host : of the address, as the browser sees this machine; the server itself listens to this machine alone.
        origins : of pages that may hold the view besides, where a proxy stands between.
        """
        if self._server is None:
            self._server = _Live(self, port, host, origins)
            self.url = self._server.url
        return self.url

    def close(self) -> None:
        """End the live view; the picture stays."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def to_html(self) -> str:
        """The first view as a page of its own; where it finds the live view, it becomes that."""
        page = str(file_html(self.panels(live=False), INLINE, title="Image"))
        if not self.url:
            return page
        swap = (
            f"fetch({json.dumps(self.url)}, {{mode: 'no-cors'}}).then(() => location.replace({json.dumps(self.url)}))"
        )
        return at_the_end(page, f"<script>{swap}.catch(() => null)</script>")

    def _repr_html_(self) -> str:
        self.serve()
        shape = f"width:100%;max-width:{SCREEN + 480}px;height:{SCREEN + 60}px;border:0;border-radius:6px"
        return f'<iframe title="Image" srcdoc="{html.escape(self.to_html(), quote=True)}" style="{shape}"></iframe>'


class _Side:
    """What was clicked: words, cutout and spectrum."""

    def __init__(self, explorer: ImageExplorer) -> None:
        self._explorer = explorer
        width: Any = {"sizing_mode": "stretch_width", "min_width": 200, "max_width": 340}  # what the page leaves
        self.words = Div(text="Click a source.", name="chosen", **width)
        self.cut = ColumnDataSource({"shade": [], "x": [], "y": [], "dw": [], "dh": []}, name="cutout")
        panel: Any = figure(height=300, tools="save", match_aspect=True, title="Cutout, to its own peak", **width)
        self.points = ColumnDataSource({"mhz": [], "flux": [], "low": [], "high": []}, name="spectrum")
        self.line = ColumnDataSource({"mhz": [], "flux": []}, name="catalogue")
        mapper = LinearColorMapper(palette=[to_hex(c) for c in style.SKY_MAP(np.linspace(0, 1, 256))])
        panel.image(image="shade", x="x", y="y", dw="dw", dh="dh", source=self.cut, color_mapper=mapper)
        spectrum: Any = figure(
            height=240, tools="save", title="Spectrum", x_axis_label="MHz", y_axis_label="flux density (mJy)", **width
        )
        spectrum.line("mhz", "flux", source=self.line, color=style.MUTED, line_dash="dashed", legend_label="catalogue")
        spectrum.segment("mhz", "low", "mhz", "high", source=self.points, color=style.BLUE)
        spectrum.scatter("mhz", "flux", source=self.points, color=style.BLUE, size=7, legend_label="image")
        spectrum.legend.label_text_font_size = "9px"
        for one in (panel, spectrum):
            one.toolbar_location = None
        self.layout = column(self.words, panel, spectrum, **width)

    def show(self, x: float, y: float) -> None:
        explorer = self._explorer
        found = explorer.at(x, y)
        explorer.chosen = found
        if found is None:
            self.words.text = "Nothing here: blank."
            return
        self.words.text = _words(found, explorer._unit, explorer._scale)  # noqa: SLF001 - halves of one thing
        half = round(6 * explorer._reach)  # noqa: SLF001
        self.cut.data = explorer_cut(explorer._plane.values, found.spot, half)  # noqa: SLF001
        band = explorer._img["frequency"].values  # noqa: SLF001
        self._draw_spectrum(found, band)

    def _draw_spectrum(self, found: Chosen, hertz: NDArray[np.float64]) -> None:
        measured = found.spectrum or ((float(hertz[0]), found.flux_jy, found.error_jy),)
        f, s, e = (np.array(v) for v in zip(*measured, strict=True))
        self.points.data = {"mhz": f / 1e6, "flux": s * 1e3, "low": (s - e) * 1e3, "high": (s + e) * 1e3}
        mhz = np.linspace(1300.0, 1500.0, 41) if np.isfinite(found.catalog_flux_jy) else np.zeros(0)
        index = found.spectral_index if np.isfinite(found.spectral_index) else 0.0
        self.line.data = {"mhz": mhz, "flux": found.catalog_flux_jy * 1e3 * (mhz / 1400.0) ** index}


def explorer_cut(values: NDArray[np.float32], spot: Spot, half: int) -> dict[str, list[Any]]:
    """The pixels about a spot, blank as their least value: columns of a bokeh source."""
    x, y = round(spot.x), round(spot.y)
    rows = slice(max(y - half, 0), min(y + half + 1, values.shape[0]))
    columns = slice(max(x - half, 0), min(x + half + 1, values.shape[1]))
    cut = values[rows, columns]
    noise = spot.noise if np.isfinite(spot.noise) and spot.noise > 0 else max(abs(spot.peak), 1e-12) / 100
    shade = np.arcsinh(np.nan_to_num(cut, nan=float(np.nanmin(cut))) / (2 * noise)).astype(np.float32)
    place = {"x": columns.start - 0.5, "y": rows.start - 0.5, "dw": cut.shape[1], "dh": cut.shape[0]}
    return {"shade": [shade], **{name: [value] for name, value in place.items()}}


def _words(found: Chosen, unit: str, scale: float) -> str:
    ratio = found.flux_jy / found.catalog_flux_jy
    lines = [
        f"<b>{html.escape(found.name) or 'Not in the catalogue'}</b>",
        f"{found.ra_deg:.5f}°, {found.dec_deg:+.5f}°",
        f"peak {found.spot.peak * scale:.4g} ± {found.spot.noise * scale:.2g} {html.escape(unit)}",
    ]
    if found.response != 1.0:
        lines.append(f"flux {found.flux_jy * 1e3:.4g} ± {found.error_jy * 1e3:.2g} mJy (beam {found.response:.3f})")
    if np.isfinite(found.catalog_flux_jy):
        lines.append(f"catalogue {found.catalog_flux_jy * 1e3:.4g} mJy at 1.4 GHz, ratio {ratio:.3f}")
        lines.append(f"{found.separation_arcsec:.1f}″ from the catalogue's place")
    return "<br>".join(lines)


class _Live:
    """A bokeh server of one explorer, in a thread with a loop of its own: it answers while the kernel computes."""

    def __init__(self, explorer: ImageExplorer, port: int, host: str, origins: tuple[str, ...]) -> None:
        self._ready, self._failure = threading.Event(), ""
        self._loop: Any = None
        self._port = _free_port(port)
        application = Application(FunctionHandler(lambda document: document.add_root(explorer.panels())))
        allowed = sorted({f"{name}:{self._port}" for name in (host, "localhost", "127.0.0.1")} | set(origins))
        self._thread = threading.Thread(target=self._run, args=(application, allowed), daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure:
            raise InputError("The live view cannot be served", found=self._failure, expected="a free port")
        self.url = f"http://{host}:{self._port}/"

    def _run(self, application: Any, allowed: list[str]) -> None:
        asyncio.set_event_loop(asyncio.new_event_loop())
        self._loop = IOLoop.current()
        try:
            server: Any = Server(
                {"/": application}, io_loop=self._loop, port=self._port, address="127.0.0.1",
                allow_websocket_origin=allowed,
            )  # fmt: skip
        except (OSError, ValueError) as error:
            self._failure = str(error)
            self._ready.set()
            return
        server.start()
        self._loop.add_callback(self._ready.set)
        self._loop.start()
        server.stop()
        self._loop.close()

    def close(self) -> None:
        """Stop the loop, which ends the thread."""
        self._loop.add_callback(self._loop.stop)
        self._thread.join(timeout=5)


def _free_port(wanted: int) -> int:
    """A port of this machine that nobody has: pages must be allowed by number before there is a server."""
    try:
        with socket.socket() as one:
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            one.bind(("127.0.0.1", wanted))
            return int(one.getsockname()[1])
    except OSError as error:
        raise InputError("The live view cannot be served", found=f"port {wanted}: {error}", expected="0") from error


def image_explorer(img: xr.Dataset, sources: pd.DataFrame | None = None) -> ImageExplorer:
    """An image to zoom, pan and click in.

    Parameters
    ----------
    img : Image view
        SKY, and PRIMARY_BEAM where it is there; the first plane of a cube is shown, all of them make the spectrum.
    sources : DataFrame, optional
        A catalogue or photometry: sources that should be seen are marked, and named when clicked.

    Raises
    ------
    InputError
        No image.
    """
    return ImageExplorer(img, sources)
