"""The same rasters as in `looking`, to zoom, pan and point at: bokeh figures that need no server and no network.

What is shown in a notebook is one frame with everything in it, the program that draws it included: it looks the same
in JupyterLab, in a page made by nbconvert, and without a connection.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import xarray as xr
from bokeh.embed import file_html
from bokeh.layouts import gridplot
from bokeh.model import Model
from bokeh.models import ColumnDataSource, FixedTicker, HoverTool, LinearColorMapper, LogColorMapper
from bokeh.plotting import figure
from bokeh.resources import INLINE
from matplotlib.colors import Colormap, to_hex
from numpy.typing import NDArray

from dsa110_contimg.views import raster, style
from dsa110_contimg.views.columns import Against, Columns
from dsa110_contimg.views.looking import FLAGGED, unit_of
from dsa110_contimg.views.planes import uv_plane, waterfall

_WIDTH, _HEIGHT = 860, 420
_NOTE = f"color:{style.MUTED};font:12px/1.5 system-ui,sans-serif;max-width:{_WIDTH}px;margin:4px 8px"
_TOOLS = "pan,wheel_zoom,box_zoom,reset,save"


@dataclass(frozen=True)
class Interactive:
    """An interactive figure that shows itself in notebooks and can be kept as a page.

    Attributes
    ----------
    figure : the bokeh model.
    title : of the page.
    caption : what is drawn, under the figure.
    height : of the frame (pixels).
    """

    figure: Model
    title: str
    caption: str
    height: int

    def to_html(self) -> str:
        """A whole page with everything in it."""
        note = f'<p style="{_NOTE}">{html.escape(self.caption)}</p>'
        page = at_the_end(str(file_html(self.figure, INLINE, title=self.title)), note)
        return page.replace("<body>", '<body style="background:white">')

    def save(self, path: Path) -> Path:
        """Write the page; errors as `pathlib.Path.write_text`."""
        path.write_text(self.to_html(), encoding="utf-8")
        return path

    def _repr_html_(self) -> str:
        return self.to_frame()

    def to_frame(self) -> str:
        """The page in a frame of its own, to stand in another page."""
        page = html.escape(self.to_html(), quote=True)
        shape = f"width:100%;max-width:{_WIDTH + 40}px;height:{self.height + 30}px;border:0;border-radius:6px"
        return f'<iframe title="{html.escape(self.title)}" srcdoc="{page}" style="{shape}"></iframe>'


def at_the_end(page: str, addition: str) -> str:
    """A page with something more at the end of its body.

    Only the last ``</body>`` ends the body: bokeh's own scripts hold the tag in strings, which must stay whole.
    """
    before, end, after = page.rpartition("</body>")
    return f"{before}{addition}\n{end}{after}"


def interactive_amplitude(vis: xr.Dataset, x: Against = "uvdist") -> Interactive:
    """`looking.amplitude`, interactive."""
    return _raster(raster.amplitude(vis, x), f"amplitude ({unit_of(vis)})", str(vis.attrs.get("group_id", "")))


def interactive_phase(vis: xr.Dataset, x: Against = "uvdist") -> Interactive:
    """`looking.phase`, interactive."""
    return _raster(raster.phase(vis, x), "phase (deg)", str(vis.attrs.get("group_id", "")))


def interactive_uv(vis: xr.Dataset) -> Interactive:
    """uv coverage, interactive; as `visibilities.uv_coverage`, with more pixels to zoom into."""
    plane = uv_plane(vis, pixels=700)
    edges = np.linspace(-plane.limit, plane.limit, len(plane.whole) + 1)
    axis = Columns("u", edges, f"u ({plane.unit})", log=False, width="")
    count = np.where(plane.whole > 0, plane.whole, np.nan).astype(np.float32)
    panel = _panel(f"uv coverage: {plane.baselines} baselines", axis, f"v ({plane.unit})", (560, 620))
    shown = _image(
        panel,
        (axis.edges, edges),
        {"count": count, "MHz": (plane.frequency / 1e6).astype(np.float32)},
        _count_mapper(count),
        [
            (f"u, v ({plane.unit})", "$x{0.00}, $y{0.00}"),
            ("visibilities", "@count{0,0}"),
            ("mean frequency (MHz)", "@MHz{0.0}"),
        ],
    )
    panel.x_range.start, panel.x_range.end = plane.limit, -plane.limit
    _bar(panel, shown, "visibilities on a pixel")
    return _finish([panel], plane.caption.split("; in the core")[0] + ".", "uv coverage", 560)


def interactive_waterfall(
    vis: xr.Dataset, antenna: str | int | None = None, baseline: str | tuple[str, str] | None = None
) -> Interactive:
    """`looking.waterfall`, interactive; parameters and errors as there."""
    data = waterfall(vis, antenna, baseline)
    panels: list[Any] = []
    for row, hand in enumerate(data.polarizations):
        for name, values in (("amplitude", data.amplitude[row]), ("phase", np.degrees(data.phase[row]))):
            unit = unit_of(vis) if name == "amplitude" else "deg"
            title = f"{data.title} {hand}: {name} ({unit})"
            panel = _panel(title, data.frequencies, "minutes", (260, _WIDTH // 2), panels[0] if panels else None)
            panel.background_fill_color = FLAGGED
            cells = {name: values.astype(np.float32), "number": data.number[row].astype(np.float32)}
            hover = [("MHz, minutes", "$x{0.00}, $y{0.00}"), (f"{name} ({unit})", f"@{name}{{0.0000}}")]
            mapper = _plane_mapper(values, name)
            edges = (data.frequencies.edges, data.times.edges)
            shown = _image(panel, edges, cells, mapper, [*hover, ("visibilities", "@number{0,0}")])
            _bar(panel, shown, "")
            panels.append(panel)
    return _finish(panels, data.caption, f"Waterfall: {data.title}", 260 * len(data.polarizations) + 30)


def _raster(data: raster.Raster, label: str, name: str) -> Interactive:
    columns = data.columns
    title = f"{data.subject.capitalize()} against {columns.name}"
    panel = _panel(f"{title}   {name}", columns, label, (_HEIGHT, _WIDTH))
    count = np.where(data.count > 0, data.count, np.nan).astype(np.float32)
    centres = np.broadcast_to(columns.centres, count.shape).astype(np.float32)
    # a logarithmic axis is drawn as the evenly spaced logarithm, so that columns are equally wide
    edges = np.log10(columns.edges) if columns.log else columns.edges
    shown = _image(
        panel,
        (edges, data.levels),
        {"count": count, "x": centres},
        _count_mapper(count, even=data.subject == "phase" and not columns.log),
        [(columns.label, "@x{0.000}"), (label, "$y{0.0000}"), ("visibilities", "@count{0,0}")],
    )
    if data.subject == "amplitude":
        middles = (edges[:-1] + edges[1:]) / 2
        panel.line(middles, data.median, color=style.VERMILION, width=2, legend_label="median")
        panel.legend.location = "top_left"
        panel.legend.background_fill_alpha = 0.7
    _bar(panel, shown, "visibilities on a pixel")
    text = data.caption + (f" {data.above:,} lie above the panel." if data.above else "")
    return _finish([panel], text, title, _HEIGHT)


def _panel(title: str, columns: Columns, label: str, size: tuple[int, int], like: Any = None) -> Any:
    """An empty panel; one that is ``like`` another zooms with it."""
    shared = {} if like is None else {"x_range": like.x_range, "y_range": like.y_range}
    panel = figure(
        title=title, height=size[0], width=size[1], tools=_TOOLS, active_scroll="wheel_zoom",
        x_axis_label=columns.label, y_axis_label=label, **shared,
    )  # fmt: skip
    panel.toolbar.logo = None
    panel.grid.visible = False
    panel.x_range.update(range_padding=0)
    panel.y_range.update(range_padding=0)
    if columns.log:
        low, high = np.floor(np.log10(columns.edges[[0, -1]])).astype(int)
        ticks = [factor * 10.0**power for power in range(low, high + 1) for factor in (1, 2, 5)]
        panel.xaxis.ticker = FixedTicker(ticks=[float(np.log10(tick)) for tick in ticks])
        panel.xaxis.major_label_overrides = {float(np.log10(tick)): f"{tick:g}" for tick in ticks}
    return panel


def _image(
    panel: Any,
    edges: tuple[NDArray[np.float64], NDArray[np.float64]],
    cells: dict[str, NDArray[np.float32]],
    mapper: Any,
    hover: Sequence[tuple[str, str]],
) -> Any:
    """Draw the first of the cells; pointing at it tells all. Bokeh's images have even pixels: uneven ones are cut."""
    x, y = (_even(e) for e in edges)
    source = ColumnDataSource({name: [values[np.ix_(y, x)]] for name, values in cells.items()})
    place = {"x": edges[0][0], "y": edges[1][0], "dw": np.ptp(edges[0]), "dh": np.ptp(edges[1])}
    shown = panel.image(image=next(iter(cells)), source=source, color_mapper=mapper, **place)
    panel.add_tools(HoverTool(renderers=[shown], tooltips=list(hover)))
    return shown


def _even(edges: NDArray[np.float64]) -> NDArray[np.int64]:
    """Cell of each of enough even pixels; the same as the cells where these are even."""
    widths = np.diff(edges)
    number = min(round(float(np.ptp(edges) / np.median(widths))), 4 * widths.size)
    middles = edges[0] + (np.arange(number) + 0.5) * np.ptp(edges) / number
    return np.clip(np.searchsorted(edges, middles) - 1, 0, widths.size - 1)


def _palette(colours: Colormap) -> list[str]:
    return [to_hex(colour) for colour in colours(np.linspace(0, 1, 256))]


def _count_mapper(count: NDArray[np.float32], *, even: bool = False) -> Any:
    """Logarithmic, or linear from zero where counts are much alike."""
    top = max(2.0, float(np.nanmax(count, initial=1)))
    kind, low = (LinearColorMapper, 0) if even else (LogColorMapper, 1)
    return kind(palette=_palette(style.DENSITY), low=low, high=top, nan_color="#00000000")


def _plane_mapper(values: NDArray[np.float64], name: str) -> Any:
    """Amplitudes from zero, a pixel in two hundred saturated; phases once around."""
    good = values[np.isfinite(values)]
    if name == "phase":
        colours, low, high = mpl.colormaps["twilight_shifted"], -180.0, 180.0
    else:
        top = float(np.quantile(good, 0.995)) * 1.05 if good.size else 1.0
        colours, low, high = mpl.colormaps["viridis"], 0.0, max(top, 1e-12)
    return LinearColorMapper(palette=_palette(colours), low=low, high=high, nan_color="#00000000")


def _bar(panel: Any, shown: Any, label: str) -> None:
    panel.add_layout(shown.construct_color_bar(title=label, width=10, title_text_font_size="11px", padding=4), "right")


def _finish(panels: list[Any], text: str, title: str, height: int) -> Interactive:
    """Panels, two a row, over their caption."""
    body = gridplot(panels, ncols=min(2, len(panels)), toolbar_location="right", toolbar_options={"logo": None})
    return Interactive(body, title, text, height + 60)
