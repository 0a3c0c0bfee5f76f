"""``dsa110 calibrate search``: which calibrators cross the beam, when, and which group holds them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsa110_contimg.commands.console import Json, StateDir, err, read_settings, show
from dsa110_contimg.commands.options import chosen, with_flags
from dsa110_contimg.options import SearchOptions

if TYPE_CHECKING:
    from dsa110_contimg.science.search import Span
    from dsa110_contimg.settings import Settings

_COLUMNS = {"name": "", "utc": "", "group": "", "Jy": ".2f", "seen": ".2f", "beam": ".2f", "el": ".0f", "error": ".0%"}
_COLUMNS["note"] = ""
_AS_OPERATORS_SAY = {"radius_deg": "--radius", "top_n": "--top", "min_flux_jy": "--min-flux"}


@with_flags(SearchOptions, _AS_OPERATORS_SAY)
def search(
    given: dict[str, Any],
    directory: Annotated[
        Path | None,
        typer.Argument(
            metavar="[DIR]", help="Directory of subband files: their time and declination are searched. Or give --dec."
        ),
    ] = None,
    date: Annotated[str | None, typer.Option(help="Day, UTC: YYYY-MM-DD. Default: today.")] = None,
    dec: Annotated[
        float | None, typer.Option(help="Apparent pointing declination (deg; PIPELINE_POINTING_DEC_DEG).")
    ] = None,
    catalog: Annotated[
        Path | None, typer.Option(help="Your own list of calibrators, CSV or SQLite (VLA_CATALOG).")
    ] = None,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """List the calibrators that cross the beam, each transit with the group that holds it.

    A transit that no group holds is averaged over a group centred on it. The expected error is that of a bandpass
    solved on the group: flux, noise, structure and signs of variability.
    """
    settings = read_settings(state_dir=state_dir, vla_catalog=catalog, pointing_dec_deg=dec)
    options = chosen(settings.options.search, given)
    span = _span(directory, date, settings)

    from dsa110_contimg.io.catalogs import calibrators
    from dsa110_contimg.science.search import search as run

    found = run(calibrators(settings.vla_catalog), span, options)
    cover = found.coverage
    rows = found.transits.astype(object).where(found.transits.notna(), None).to_dict("records")
    columns = {name: form for name, form in _COLUMNS.items() if name != "group" or span.groups}
    show(rows if as_json else [_brief(row) for row in rows], columns, as_json, f"Transits at {span.dec_deg:+.2f}")
    if not as_json:
        err.print(
            f"longest time without a transit {cover.longest_gap_h:.1f} h; {cover.fraction_near:.0%} of the time within "
            f"{cover.near_minutes:.0f} min of one",
            highlight=False,
        )


def _brief(row: dict[str, Any]) -> dict[str, Any]:
    """What fits a terminal: flux and what is seen of it over the group (Jy), beam at transit, elevation (deg)."""
    from dsa110_contimg.science.calibrators import is_warning

    return row | {
        "Jy": row["flux_jy"],
        "seen": row["group_flux_jy"],
        "beam": row["beam_response"],
        "el": row["elevation_deg"],
        "error": row["expected_error"],
        "note": "may vary" if is_warning(row["variability"]) else row["variability"].partition(":")[0],
    }


def _span(directory: Path | None, date: str | None, settings: Settings) -> Span:
    from dsa110_contimg.science.search import span_of_day, span_of_groups
    from dsa110_contimg.service.search import groups_in

    if directory is not None:
        if date is not None:
            raise typer.BadParameter("the files of DIR say when they were recorded; give DIR or --date")
        return span_of_groups(groups_in(directory, settings))
    if settings.pointing_dec_deg is None:
        raise typer.BadParameter("give DIR, or --dec, the pointing declination (PIPELINE_POINTING_DEC_DEG)")
    return span_of_day(date or datetime.now(UTC).date().isoformat(), settings.pointing_dec_deg)
