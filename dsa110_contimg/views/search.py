"""Searching for a calibrator: a table, a sky view, the tracks of a day, and a panel of widgets over them."""

from __future__ import annotations

import base64
import html
import io
import threading
import uuid
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd
from IPython.display import display, update_display
from ipywidgets import HTML, Button, Dropdown, FloatText, HBox, IntText, Layout, Text, VBox  # type: ignore[import-untyped]
from matplotlib.figure import Figure
from pydantic import ValidationError

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import ContimgError, InputError
from dsa110_contimg.options import SearchOptions
from dsa110_contimg.records import SubbandGroup
from dsa110_contimg.science import beam, calibrators
from dsa110_contimg.science.search import Found, Span, search, span_of_day, span_of_groups
from dsa110_contimg.views.style import AMBER, BLUE, FAINT, MUTED, VERMILION, new_figure, styled
from dsa110_contimg.views.tables import Markup, table

FindGroups = Callable[[str], Sequence[SubbandGroup]]
"""The groups of a directory."""

_NO_TRANSITS = [("no group that holds a transit", None)]
_INPUTS = {
    "path": (Text, "Directory", "428px"),
    "date": (Text, "Date (UTC)", "212px"),
    "dec": (FloatText, "Dec (deg)", "212px"),
    "radius": (FloatText, "Radius (deg)", "212px"),
    "min_flux": (FloatText, "At least (Jy)", "212px"),
    "top_n": (IntText, "At most", "212px"),
}


# ---- tables and figures -------------------------------------------------------------------------------------------


def transit_table(found: Found) -> Markup:
    """Every transit: when, in which group, what the beam leaves of the calibrator, and what to know about it."""
    heads = ("calibrator; variability", "transit (UTC); group", "flux (Jy)", "offset (deg)", "elev. (deg)")
    seen = ("beam at transit", "over group", "seen (Jy)", "expected error", "structure A–D")
    rows = [
        (
            f"<b>{html.escape(_called(row))}</b>{_small(row['variability'], warning=True)}",
            html.escape(row["utc"].replace("T", " ")) + _small(row["group"] and f"in {row['group']}"),
            f"{row['flux_jy']:.2f} ± {row['flux_error_jy']:.2f}{_small(row['origin'])}",
            f"{row['offset_deg']:+.2f}",
            f"{row['elevation_deg']:.1f}",
            f"{row['beam_response']:.3f}",
            f"{row['group_response']:.3f}",
            f"{row['group_flux_jy']:.2f}",
            f"{row['expected_error'] * 100:.1f} %",
            html.escape(_l_band(row.get("codes", ""))),
        )
        for _, row in found.transits.iterrows()
    ]
    plain = table((*heads, *seen), rows, empty="No calibrator crosses the meridian in this time.")
    return Markup(plain.text, f'<div style="overflow-x:auto">{_set(plain.body)}</div>')


def _small(text: str, *, warning: bool = False) -> str:
    """Words on lines of their own, under what matters more; signs of variability in the colour of the figures."""
    if not text:
        return ""
    colour = VERMILION if warning and calibrators.is_warning(text) else MUTED
    style = f"font-size:85%;white-space:normal;max-width:19em;color:{colour}"
    return f' <div style="{style}">{html.escape(text)}</div>'


def _set(body: str) -> str:
    """Text to the left and on one line: the page around turns tables to the right and breaks what is in them."""
    cell = "text-align:left;line-height:1.35;padding:2px 7px;vertical-align:top"
    body = body.replace("<th>", f'<th style="{cell};white-space:normal">')
    return body.replace("<td>", f'<td style="{cell};white-space:nowrap">')


@styled
def calibrator_sky(found: Found) -> Figure:
    """The strip of sky that drifts through the beam in a sidereal day, and the candidates in it.

    The band is as wide as the search, the lines are at half power (1.4 GHz); areas go with flux.
    """
    figure = new_figure(10.0, 3.0)
    axes = figure.add_subplot()
    span, chosen = found.span, found.candidates
    dec = span.dec_deg + chosen["offset_deg"]
    widest = max(float(chosen["offset_deg"].abs().max()), 1.5)
    half = np.degrees(beam.half_power_radius(telescope.REFERENCE_FREQUENCY_HZ))
    axes.axhspan(span.dec_deg - widest, span.dec_deg + widest, color=FAINT, alpha=0.45, lw=0)
    axes.axhline(span.dec_deg, color=MUTED, lw=0.8)
    for edge in (-half, half):
        axes.axhline(span.dec_deg + edge, color=MUTED, lw=0.8, ls=":")
    warned = chosen["variability"].map(calibrators.is_warning).to_numpy()
    for some, colour, label in ((~warned, BLUE, "no sign of variability"), (warned, VERMILION, "may vary")):
        area = 14 + 22 * chosen.loc[some, "flux_jy"]
        axes.scatter(chosen.loc[some, "ra_deg"] / 15, dec[some], s=area, color=colour, alpha=0.8, lw=0, label=label)
    # names of neighbours in right ascension above and below in turn; at the edges, inwards
    for place, index in enumerate(chosen.sort_values("ra_deg").index):
        hours, above = chosen.loc[index, "ra_deg"] / 15, place % 2 == 0
        axes.annotate(
            _short(chosen.loc[index]),
            (hours, dec[index]),
            xytext=(0, 8 if above else -8),
            textcoords="offset points",
            ha="right" if hours < 1 else "left" if hours > 23 else "center",
            va="bottom" if above else "top",
            fontsize=7.5,
        )
    axes.set(xlim=(24, 0), xticks=range(0, 25, 3), xlabel="right ascension (h, ICRS)")
    axes.set(ylim=(span.dec_deg - widest - 0.5, span.dec_deg + widest + 0.7), ylabel="declination of date (deg)")
    axes.set_title(f"Candidates at declination {span.dec_deg:+.2f}")
    figure.legend(loc="outside lower right", ncols=2)
    return figure


@styled
def calibrator_tracks(found: Found) -> Figure:
    """Altitude and beam response of the candidates over the first 24 hours, with a mark at every transit."""
    figure = new_figure(10.0, 5.2)
    high, low = figure.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    span = found.span
    mjd = span.mjd_start + np.arange(0, 1.0, 2 / 1440)
    altitude, response = calibrators.tracks(found.candidates, np.radians(span.dec_deg), mjd)
    hours = (mjd - span.mjd_start) * 24
    warned = found.candidates["variability"].map(calibrators.is_warning).to_numpy()
    for rise, seen, is_warned in zip(altitude, response, warned, strict=True):
        colour = VERMILION if is_warned else BLUE
        high.plot(hours, np.where(rise > 0, rise, np.nan), color=colour, lw=0.9, alpha=0.6)
        low.plot(hours, np.where(rise > 0, seen, np.nan), color=colour)
    held = found.transits[found.transits["group"] != ""]
    for group in span.groups:
        begin = (group.mjd_first - telescope.INTEGRATION_S / 2 / 86400 - span.mjd_start) * 24
        length = group.n_integrations * telescope.INTEGRATION_S / 3600
        colour, strength = (AMBER, 0.5) if group.group_id in set(held["group"]) else (FAINT, 0.8)
        low.axvspan(begin, begin + length, color=colour, alpha=strength, lw=0, zorder=0)
    for _, row in found.transits[found.transits["mjd"] < span.mjd_start + 1].iterrows():
        when = (row["mjd"] - span.mjd_start) * 24
        high.plot(
            when,
            row["elevation_deg"],
            marker="v",
            color=VERMILION if calibrators.is_warning(row["variability"]) else BLUE,
            ms=5,
            clip_on=False,
        )
        high.annotate(
            _short(row),
            (when, row["elevation_deg"]),
            xytext=(0, 6),
            textcoords="offset points",
            rotation=90,
            ha="left" if when < 0.3 else "right" if when > 23.7 else "center",
            va="bottom",
            fontsize=7.5,
        )
    high.set(ylabel="altitude (deg)", ylim=(0, 112), yticks=range(0, 91, 15))
    high.set_title("Altitude, and transits")
    low.set(ylabel="beam at 1.4 GHz", ylim=(0, 1.05), xlim=(0, 24), xticks=range(0, 25, 3))
    low.set_xlabel(f"hours after {_utc(span.mjd_start)} UTC" + _group_note(span, held))
    return figure


def coverage_line(found: Found) -> str:
    """How well the transits cover the span, in a sentence."""
    cover, days = found.coverage, found.span.mjd_end - found.span.mjd_start
    return (
        f"{cover.n_transits} transits in {days * 24:.0f} h; the longest time without one is {cover.longest_gap_h:.1f} "
        f"h; {cover.fraction_near:.0%} of the time lies within {cover.near_minutes:.0f} min of one."
    )


def _group_note(span: Span, held: pd.DataFrame) -> str:
    if not span.groups:
        return ""
    return f"; grey: groups recorded ({len(span.groups)}), amber: those that hold a transit ({held['group'].nunique()})"


def _utc(mjd: float) -> str:
    return str(np.datetime64("1858-11-17T00:00:00") + np.timedelta64(round(mjd * 86400), "s")).replace("T", " ")


def _called(row: pd.Series) -> str:
    """The common name of a source that has one, beside that of the list."""
    other = str(row.get("alt_name", ""))
    return f"{row['name']} {other}" if other.startswith(("3C", "NGC", "BL", "OQ")) else str(row["name"])


def _short(row: pd.Series) -> str:
    """One name, the common one where there is one."""
    return _called(row).split(maxsplit=1)[-1] if _called(row) != row["name"] else str(row["name"])


def _l_band(codes: str) -> str:
    return next((entry.removeprefix("L:") for entry in codes.split() if entry.startswith("L:")), "–")


# ---- the panel ----------------------------------------------------------------------------------------------------


class Job(Protocol):
    """A solution under way elsewhere (`service.search.Solving`)."""

    command: str

    def follow(self, tell: Callable[[str], None]) -> list[dict[str, Any]]:
        """Wait for the end, telling what there is to see; the tables, or a ContimgError."""

    def cancel(self) -> None:
        """End it."""


Solve = Callable[[SubbandGroup], Job]
"""Begins to solve on a group."""


class CalibratorSearch:
    """Where and when to look, over what is found there, and buttons that solve on a group and cancel that.

    What is found is an output of its own and no widget, so that it stays in a page where no kernel answers. A solution
    runs elsewhere and is followed by a thread: the kernel stays free.

    Attributes
    ----------
    inputs : widgets by name: ``path``, ``date``, ``dec``, ``radius``, ``min_flux``, ``top_n``.
    transit, solve, cancel : the choice among transits that a group holds, and the buttons.
    status, output : what became of a solution, and what it says while it runs.
    follower : the thread that follows the last solution; None before the first.
    found : the last search; None if it failed.
    page : what is shown, by MIME type.
    """

    def __init__(
        self,
        catalog: pd.DataFrame,
        inputs: dict[str, Any],
        find_groups: FindGroups | None,
        on_solve: Solve | None,
        options: SearchOptions,
    ) -> None:
        self._catalog, self._find_groups, self._on_solve, self._options = catalog, find_groups, on_solve, options
        self._name = uuid.uuid4().hex
        self._job: Job | None = None
        self.follower: threading.Thread | None = None
        self.found: Found | None = None
        self.page: dict[str, str] = {}
        given = {"radius": options.radius_deg, "min_flux": options.min_flux_jy, "top_n": options.top_n} | inputs
        self.inputs = {
            name: kind(
                value=given[name],
                description=label,
                layout=Layout(width=width),
                style={"description_width": "88px"},
                continuous_update=False,
            )
            for name, (kind, label, width) in _INPUTS.items()
        }
        self.inputs["path"].disabled = find_groups is None
        self.transit = Dropdown(
            options=_NO_TRANSITS,
            description="Transit",
            layout=Layout(width="420px"),
            style={"description_width": "88px"},
        )
        self.solve = Button(
            description="Solve", disabled=True, icon="play", tooltip="Convert, flag and solve the group"
        )
        self.cancel = Button(description="Cancel", disabled=True, icon="stop", tooltip="Interrupt the solution")
        self.status, self.output = HTML(), HTML()
        for widget in self.inputs.values():
            widget.observe(self._again, names="value")
        self.solve.on_click(self._solve)
        self.cancel.on_click(self._cancel)
        self._search()

    def _span(self) -> Span:
        path = self.inputs["path"].value.strip()
        for name in ("date", "dec"):
            self.inputs[name].disabled = bool(path)
        if path and self._find_groups is not None:
            return span_of_groups(self._find_groups(path))
        return span_of_day(self.inputs["date"].value, self.inputs["dec"].value)

    def _chosen(self) -> SearchOptions:
        names = {"radius_deg": "radius", "min_flux_jy": "min_flux", "top_n": "top_n"}
        values = {option: self.inputs[widget].value for option, widget in names.items()}
        try:
            return SearchOptions.model_validate(self._options.model_dump() | values)
        except ValidationError as error:
            faults = "; ".join(f"{names[str(f['loc'][0])]}: {f['msg']}" for f in error.errors())
            raise InputError("Cannot search so", found=faults) from error

    def _search(self) -> None:
        self.found = None
        try:
            self.found = search(self._catalog, self._span(), self._chosen())
        except ContimgError as error:
            self.page = {"text/html": f"<p>{html.escape(str(error))}</p>", "text/plain": str(error)}
        else:
            self.page = _page(self.found)
        groups = {} if self.found is None else {group.group_id: group for group in self.found.span.groups}
        rows = [] if self.found is None else [row for _, row in self.found.transits.iterrows() if row["group"]]
        rows.sort(key=lambda row: -row["score"])
        self.transit.options = [
            (f"{_called(row)} in {row['group']}", groups[row["group"]]) for row in rows
        ] or _NO_TRANSITS
        self.transit.index = 0  # the choice stays where it was, which is nowhere, when its options change
        self._set_buttons()

    def _set_buttons(self) -> None:
        self.cancel.disabled = self._job is None
        self.solve.disabled = self._job is not None or self.transit.value is None or self._on_solve is None

    def _again(self, _change: Any) -> None:
        self._search()
        update_display(self.page, display_id=self._name, raw=True)

    def _solve(self, _button: Any) -> None:
        group = self.transit.value
        if group is None or self._on_solve is None or self._job is not None:
            return
        self.output.value = ""
        try:
            self._job = self._on_solve(group)
        except ContimgError as error:
            self._say_failed(error)
            return
        self.status.value = (
            f"Solving since {datetime.now(UTC):%H:%M:%S} UTC: <code>{html.escape(self._job.command)}</code>"
        )
        self._set_buttons()
        self.follower = threading.Thread(target=self._follow, args=(self._job,), daemon=True)
        self.follower.start()

    def _follow(self, job: Job) -> None:
        try:
            rows = job.follow(self._show_output)
        except ContimgError as error:
            self._say_failed(error)
        else:
            self.output.value = ""
            self.status.value = _tables(rows)
        finally:
            self._job = None
            self._set_buttons()

    def _cancel(self, _button: Any) -> None:
        job = self._job
        if job is not None:
            self.cancel.disabled = True
            self.status.value = "Cancelling …"
            # what has to stop takes its time
            threading.Thread(target=job.cancel, daemon=True).start()

    def _show_output(self, text: str) -> None:
        self.output.value = f'<pre style="line-height:1.3;font-size:85%">{html.escape(text)}</pre>'

    def _say_failed(self, error: ContimgError) -> None:
        self.status.value = f"<b>Not solved.</b> {html.escape(str(error))}"

    def _ipython_display_(self) -> None:
        display(HBox(list(self.inputs.values()), layout=Layout(flex_flow="row wrap")))
        display(HBox([self.transit, self.solve, self.cancel], layout=Layout(flex_flow="row wrap")))
        display(VBox([self.status, self.output], layout=Layout(margin="0 0 0 92px")))
        display(self.page, display_id=self._name, raw=True)


def _tables(rows: Sequence[dict[str, Any]]) -> str:
    """What was solved, and where it stands."""
    heads = ("table", "calibrator", "reference antenna", "flagged", "median SNR")
    cells = [
        (
            f"<code>{html.escape(Path(row['path']).name)}</code>",
            html.escape(row["calibrator"]) or "the field",
            html.escape(row["refant"]),
            f"{row['flagged_fraction']:.1%}",
            f"{row['median_snr']:.0f}",
        )
        for row in rows
    ]
    where = ", ".join(sorted({f"<code>{html.escape(str(Path(row['path']).parent))}</code>" for row in rows}))
    listed = _set(table(heads, cells, empty="The solution made no table.").body)
    return f"<b>Solved and registered</b> in {where}{listed}" if rows else listed


def calibrator_search(
    catalog: pd.DataFrame,
    *,
    path: str = "",
    date: str = "",
    dec_deg: float = float("nan"),
    find_groups: FindGroups | None = None,
    on_solve: Solve | None = None,
    options: SearchOptions | None = None,
) -> CalibratorSearch:
    """A panel to search for calibrators with.

    Parameters
    ----------
    catalog : DataFrame
        `io.catalogs.calibrators`.
    path : directory of subband files, whose time and declination are searched; else a date and a declination are.
    date : YYYY-MM-DD, UTC.
    dec_deg : apparent pointing declination (deg).
    find_groups : makes groups of a directory (`service.search.groups_in`); without it, only dates can be searched.
    on_solve : begins to solve on a group (`service.search.solve`); without it, the button stays off.
    options : radius, flux and number to begin with; by default those of `SearchOptions`.
    """
    inputs = {"path": path, "date": date, "dec": dec_deg}
    return CalibratorSearch(catalog, inputs, find_groups, on_solve, options or SearchOptions())


def _page(found: Found) -> dict[str, str]:
    """Sentence, table and figures, as HTML that needs no kernel."""
    listed = transit_table(found)
    figures = _image(calibrator_sky(found), "candidates on the sky")
    figures += _image(calibrator_tracks(found), "altitude and beam response against time, with transits")
    sentence = coverage_line(found)
    return {
        "text/html": f"<p>{html.escape(sentence)}</p>{listed.body}{figures}",
        "text/plain": f"{sentence}\n{listed.text}",
    }


def _image(figure: Figure, alt: str) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    code = base64.b64encode(stream.getvalue()).decode()
    return f'<img src="data:image/png;base64,{code}" alt="{alt}" style="max-width:100%"/>'
