"""A quick look at the visibilities of any Measurement Set, ours or another telescope's, without CASA.

One page with pictures beside it: amplitude and phase against everything, uv coverage, flags, and waterfalls of the
antennas that stand out. A section for each field and spectral window.
"""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from dsa110_contimg import telescope, views
from dsa110_contimg.exceptions import ExternalToolError, InputError
from dsa110_contimg.io import foreign, shadems
from dsa110_contimg.io.files import beside, make_directory
from dsa110_contimg.opening import open_ms
from dsa110_contimg.views.planes import antenna_amplitudes

Progress = Callable[[int, int], None]
"""Called after each figure: figures done, figures in all."""

_DPI = 110
_WATERFALLS = 3
_MOST_SECTIONS = 12
_MOST_ANTENNAS = 12


@dataclass(frozen=True)
class Picture:
    """A figure of the page: its file, relative to the page, and its size (pixels)."""

    title: str
    text: str
    file: str
    size: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Section:
    """One field and spectral window: HTML of the observation and of its antennas, and pictures."""

    title: str
    anchor: str
    glance: str
    antennas: str
    pictures: tuple[Picture, ...]


@dataclass(frozen=True)
class Programs:
    """What another program drew, and what is to be said of it."""

    notes: tuple[str, ...] = ()
    pictures: tuple[Picture, ...] = field(default=())


@dataclass(frozen=True)
class _Part:
    """One thing to open: a field and window of a Measurement Set."""

    title: str
    anchor: str
    open: Callable[[], xr.Dataset]


@dataclass(frozen=True)
class _Drawing:
    """One figure to make."""

    name: str
    title: str
    text: str
    draw: Callable[[xr.Dataset], Figure]


def _against(kind: str, name: str, draw: Callable[..., Figure], texts: tuple[str, str, str]) -> tuple[_Drawing, ...]:
    axes = (("uvdist", "projected baseline"), ("time", "time"), ("frequency", "frequency"))
    return tuple(
        _Drawing(f"{name}-{x}", f"{kind} against {words}", text, partial(draw, x=x))
        for (x, words), text in zip(axes, texts, strict=True)
    )


def _drawings() -> tuple[_Drawing, ...]:
    uv = "Good: a filled core without gaps, and all arms of the array there. A missing streak is a missing antenna."
    flags = "Good: a few per cent everywhere. A full bar is a dead antenna, a spike in frequency interference."
    amplitudes = (
        "Good: a band that does not widen; flat for a point source. A second band is an antenna of another gain.",
        "Good: level or smoothly changing. Steps are gains that jumped; spikes are interference or a shadow.",
        "Good: the bandpass, without spikes. Narrow peaks are interference; holes are missing channels.",
    )
    phases = (
        "Calibrated and dominated by a source at the phase centre: a narrow band about 0. Raw data fill the panel.",
        "Calibrated: level. A slope is a source away from the phase centre, or a clock that drifts.",
        "Calibrated: level. A slope is a delay that was not taken out.",
    )
    return (
        _Drawing("uv", "uv coverage", uv, views.uv_coverage),
        _Drawing("flags", "Flags", flags, views.flags),
        *_against("Amplitude", "amplitude", views.amplitude, amplitudes),
        *_against("Phase", "phase", views.phase, phases),
    )


def fast_plots(
    ms_path: Path,
    out_dir: Path,
    progress: Progress | None = None,
    *,
    column: str = "DATA",
    field: int | None = None,
    spw: int | None = None,
) -> Path:
    """Write a page with figures of a Measurement Set.

    Parameters
    ----------
    ms_path : Measurement Set of any telescope
    out_dir : directory of ``index.html`` and its pictures
    progress : called after each figure
    column : DATA, CORRECTED_DATA or MODEL_DATA
    field, spw : only this row of FIELD and of DATA_DESCRIPTION

    Returns
    -------
    Path of ``index.html``.

    Raises
    ------
    InputError, CorruptFileError
        Not a Measurement Set, or no such column, field or window.
    OutputError
        The directory cannot be written.
    """
    sections, notes = _sections(Path(ms_path), out_dir, progress, column, (field, spw))
    return _write(Path(ms_path), out_dir, column, sections, notes, None)


def quicklooks(
    ms_path: Path,
    out_dir: Path,
    progress: Progress | None = None,
    *,
    column: str = "DATA",
    field: int | None = None,
    spw: int | None = None,
) -> Path:
    """The page of `fast_plots` and, where shadeMS is installed, its pictures; else a line that says so.

    Parameters, result and errors as `fast_plots`. A shadeMS that fails is told on the page.
    """
    sections, notes = _sections(Path(ms_path), out_dir, progress, column, (field, spw))
    return _write(Path(ms_path), out_dir, column, sections, notes, _by_shadems(Path(ms_path), out_dir, column))


def _by_shadems(path: Path, out_dir: Path, column: str) -> Programs:
    if not shadems.is_installed():
        return Programs(("shadeMS is not installed here; the figures above do not need it.",))
    notes, pictures = [], []
    for command in shadems.commands(path, make_directory(out_dir / "figures"), column):
        try:
            image = shadems.run(command)
        except ExternalToolError as error:
            notes.append(str(error))
        else:
            pictures.append(Picture(command.title, "", f"figures/{image.name}"))
    return Programs(tuple(notes), tuple(pictures))


def _sections(
    path: Path, out_dir: Path, progress: Progress | None, column: str, chosen: tuple[int | None, int | None]
) -> tuple[list[Section], list[str]]:
    """All sections drawn, and what the reader should know of those that are not."""
    parts, notes = _parts(path, column, *chosen)
    drawings = _drawings()
    total = len(parts) * (len(drawings) + 1)
    made = []
    for number, part in enumerate(parts):
        try:
            vis = part.open()
        except InputError as error:
            if len(parts) == 1:
                raise
            notes.append(f"{part.title}: {error.what}.")
            continue

        def tell(done: int, before: int = number * (len(drawings) + 1)) -> None:
            if progress is not None:
                progress(before + done, total)

        made.append(_section(vis, part, out_dir, tell))
    return made, notes


def _parts(path: Path, column: str, field_: int | None, spw: int | None) -> tuple[list[_Part], list[str]]:
    """Ours is one; of others each field and window, the first dozen."""
    if field_ is None and spw is None and foreign.telescope_name(path) == telescope.TELESCOPE_NAME:
        return [_Part(path.stem, "group", partial(open_ms, path, column))], []
    whole = foreign.contents(path)
    parts = [
        _Part(
            f"Field {one}, window {window}",
            f"field{one.number}-spw{window.number}",
            partial(open_ms, path, column, field=one.number, spw=window.number),
        )
        for one in whole.fields
        for window in whole.windows
        if field_ in (None, one.number) and spw in (None, window.number)
    ]
    if not parts:
        listed = "; ".join(str(one) for one in (*whole.fields, *whole.windows))
        raise InputError("No such field or spectral window", path=path, found=f"{field_}, {spw}", expected=listed)
    if len(parts) <= _MOST_SECTIONS:
        return parts, []
    note = f"{len(parts)} fields and windows; the first {_MOST_SECTIONS} are drawn. Others: name a field or spw."
    return parts[:_MOST_SECTIONS], [note]


def _section(vis: xr.Dataset, part: _Part, out_dir: Path, tell: Callable[[int], None]) -> Section:
    fractions = views.flag_fractions(vis)
    pictures = []
    for number, drawing in enumerate(_drawings()):
        figure = views.flags(vis, fractions) if drawing.name == "flags" else drawing.draw(vis)
        pictures.append(_save(figure, out_dir, f"{part.anchor}-{drawing.name}", drawing.title, drawing.text))
        tell(number + 1)
    ratios = antenna_ratios(vis)
    for name in ratios["antenna_name"].values[:_WATERFALLS]:
        figure = views.waterfall(vis, antenna=str(name))
        text = "One of the antennas that differ most from the others. Good: smooth in time and frequency."
        pictures.append(_save(figure, out_dir, f"{part.anchor}-waterfall-{name}", f"Antenna {name}", text))
    tell(len(_drawings()) + 1)
    glance = views.glance(vis, fractions)
    return Section(part.title, part.anchor, glance, _antenna_table(ratios, fractions), tuple(pictures))


def antenna_ratios(vis: xr.Dataset) -> xr.DataArray:
    """Amplitude of each antenna relative to the median of all, the most different first; flagged antennas are absent.

    Returns
    -------
    xarray.DataArray
        (antenna_name, polarization); NaN in a polarisation that is all flagged.
    """
    amplitudes = antenna_amplitudes(vis)
    there = amplitudes.isel(antenna_name=np.flatnonzero(amplitudes.notnull().any("polarization")))
    ratio = there / there.median("antenna_name")
    with np.errstate(divide="ignore"):
        away = np.abs(np.log(ratio.values))
    most = np.where(np.isnan(away), 0.0, away).max(axis=1, initial=0.0)
    return ratio.isel(antenna_name=np.argsort(-most, kind="stable"))


def _antenna_table(ratios: xr.DataArray, fractions: xr.Dataset) -> str:
    hands = [str(name) for name in ratios["polarization"].values]
    flagged = fractions["by_antenna"].mean("polarization")
    rows = [
        [
            html.escape(str(name)),
            *(f"{value:.2f}" if np.isfinite(value) else "–" for value in ratios.sel(antenna_name=name).values),
            f"{float(flagged.sel(antenna_name=name)):.1%}",
        ]
        for name in ratios["antenna_name"].values[:_MOST_ANTENNAS]
    ]
    gone = [str(name) for name in flagged["antenna_name"].values if name not in ratios["antenna_name"].values]
    table = views.table(["antenna", *(f"ratio {hand}" for hand in hands), "flagged"], rows, "all data are flagged")
    words = f"<p>Wholly flagged: {html.escape(', '.join(gone))}.</p>" if gone else ""
    return f"{table.body}{words}"


def _save(figure: Figure, out_dir: Path, name: str, title: str, text: str) -> Picture:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name)
    path = out_dir / "figures" / f"{safe}.png"
    with beside(path) as partial_path:
        figure.savefig(partial_path, dpi=_DPI, format="png")
    width, height = (round(float(side) * _DPI) for side in figure.get_size_inches())
    return Picture(title, text, f"figures/{path.name}", (width, height))


def _write(
    path: Path, out_dir: Path, column: str, sections: list[Section], notes: list[str], programs: Programs | None
) -> Path:
    import jinja2

    data = files("dsa110_contimg") / "data"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    template = environment.from_string((data / "quicklook.html.j2").read_text(encoding="utf-8"))
    text = template.render(
        style=(data / "report.css").read_text(encoding="utf-8"),
        name=path.name,
        path=path,
        column=column,
        sections=sections,
        notes=notes,
        programs=programs,
    )
    page = out_dir / "index.html"
    with beside(page) as partial_path:
        partial_path.write_text(text, encoding="utf-8")
    return page
