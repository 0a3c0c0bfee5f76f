"""``dsa110 caltables``: the registry of calibration tables, to look at and to correct by hand."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dsa110_contimg.commands.console import Json, StateDir, out, read_settings, show, show_errors
from dsa110_contimg.exceptions import StateError

if TYPE_CHECKING:
    from dsa110_contimg.settings import Settings
    from dsa110_contimg.state.registry import Registry

app = typer.Typer(
    rich_markup_mode="rich",
    help="""The registry of calibration tables: what there is, and what is applied when.

A table is in force in a window of time. In a set, windows of one kind never overlap: a newer solution takes its window
from older ones. Nothing is deleted, so [cyan]--as-of[/cyan] tells what an old run was given.

[bold]All tables[/bold]: [cyan]dsa110 caltables[/cyan], or [cyan]dsa110 caltables list --kind B --json[/cyan]

[bold]What is applied at a time[/bold]: [cyan]dsa110 caltables at 61065.93[/cyan]

[bold]Tables from elsewhere[/bold]: [cyan]dsa110 caltables discover /data/caltables[/cyan]""",
)

Kind = Annotated[str | None, typer.Option(help="Only this kind, such as B, G or GP.")]
Label = Annotated[str, typer.Option("--run-label", help="Tables of this run; default: the pipeline's own.")]
Which = Annotated[str, typer.Argument(metavar="SET_OR_TABLE", help="Name of a set, or path of one table.")]
TablePath = Annotated[Path, typer.Argument(metavar="TABLE", help="A calibration table, a directory.")]
_COLUMNS = dict.fromkeys(("kind", "group", "calibrator", "refant", "status"), "")
_COLUMNS |= {"valid_from": ".4f", "valid_to": ".4f", "median_snr": ".1f"}


def _registry(state_dir: Path | None, *, create: bool = False) -> tuple[Registry, Settings]:
    from dsa110_contimg.state.database import open_database
    from dsa110_contimg.state.registry import Registry

    settings = read_settings(state_dir=state_dir)
    return Registry(open_database(settings.state_dir, create=create)), settings


@app.callback(invoke_without_command=True)
def caltables(context: typer.Context, state_dir: StateDir = None, kind: Kind = None, as_json: Json = False) -> None:
    """Without a command: list."""
    if context.invoked_subcommand is None:
        list_tables(state_dir=state_dir, kind=kind, run_label="", history=False, as_json=as_json)
    elif state_dir is not None or kind is not None or as_json:
        raise typer.BadParameter(f"options go after the command: dsa110 caltables {context.invoked_subcommand} ...")


@app.command("list")
def list_tables(
    state_dir: StateDir = None,
    kind: Kind = None,
    run_label: Label = "",
    history: Annotated[bool, typer.Option("--history", help="Also solutions replaced under their path.")] = False,
    as_json: Json = False,
) -> None:
    """List the calibration tables with their validity as solved."""
    registry, _ = _registry(state_dir)
    show(registry.list_tables(kind, run_label=run_label, history=history), _COLUMNS, as_json, "Calibration tables")


@app.command("show")
def show_table(path: TablePath, state_dir: StateDir = None, as_json: Json = False) -> None:
    """All that is known of one table: windows in force, parents, quality, and what was under its path before."""
    registry, _ = _registry(state_dir)
    rows = registry.show(path.absolute())
    if as_json:
        show(rows, {}, as_json, "")
        return
    for row in rows:
        told = [{"what": name, "value": _words(value)} for name, value in row.items() if value not in ("", None)]
        show(told, {"what": "", "value": ""}, as_json=False, title=f"{path.name}, registered {row['registered_at']}")


@app.command("at")
def at(
    mjd: Annotated[float, typer.Argument(metavar="MJD", help="Time of the observation (MJD UTC).")],
    as_of: Annotated[
        str | None, typer.Option("--as-of", metavar="UTC", help="As the registry stood then: YYYY-MM-DD[THH:MM:SS].")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only these; default: the kinds of the nearest calibrator's set.")
    ] = None,
    run_label: Label = "",
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """The tables to apply at a time, in order. Exit code 1, and what is missing, if a kind has none."""
    registry, _ = _registry(state_dir)
    tables = registry.applylist(mjd, _moment(as_of), kind, run_label=run_label)
    hashes = registry.hashes(tables) if as_of is None else (None,) * len(tables)
    rows: list[dict[str, Any]] = [
        {
            "kind": table.kind,
            "group": table.group_id,
            "calibrator": table.calibrator,
            "hours": 24 * (table.mjd - mjd),
            "path": str(table.path),
            "content_hash": content,
        }
        for table, content in zip(tables, hashes, strict=True)
    ]
    columns = {"kind": "", "group": "", "calibrator": "", "hours": "+.2f", "path": ""}
    show(rows, columns, as_json, f"To apply at MJD {mjd:.5f}")


@app.command("register")
def register(
    paths: Annotated[list[Path], typer.Argument(metavar="TABLE...", help="Calibration tables, directories.")],
    failed: Annotated[bool, typer.Option("--failed", help="Keep them to be looked at; never apply them.")] = False,
    reason: Annotated[str, typer.Option(help="Why they have failed.")] = "",
    set_name: Annotated[str | None, typer.Option("--set", help="Name of the set; default: from the name.")] = None,
    run_label: Label = "",
    state_dir: StateDir = None,
) -> None:
    """Enter tables, all or none; what each is and holds for is read from it."""
    from dataclasses import replace

    from dsa110_contimg.io.discovery import read_record

    registry, settings = _registry(state_dir, create=True)
    tables = [read_record(path.absolute(), _halves(settings)) for path in paths]
    if set_name is not None:
        tables = [replace(table, set_name=set_name) for table in tables]
    status = "failed" if failed else "active"
    registry.register(tables, status=status, run_label=run_label, reason=reason)
    # what is known keeps its status: a person may have retired it
    for path in paths:
        out.print(f"{path}: {registry.show(path.absolute())[-1]['status']}", soft_wrap=True)


@app.command("retire")
def retire(
    which: Which,
    reason: Annotated[str, typer.Option(help="Why; it is kept.")] = "",
    state_dir: StateDir = None,
) -> None:
    """Apply a set, or one table, no longer. Nothing is deleted: restore brings it back."""
    registry, _ = _registry(state_dir)
    out.print(f"{registry.retire(_set_or_path(which), reason)} retired")


@app.command("restore")
def restore(which: Which, state_dir: StateDir = None) -> None:
    """Bring back a retired set or table with its whole window. Failed tables stay failed."""
    registry, _ = _registry(state_dir)
    out.print(f"{registry.restore(_set_or_path(which))} in force")


@app.command("discover")
def discover(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of calibration tables.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what there is.")] = False,
    run_label: Label = "",
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Register the tables of a directory: ours by name, others by what CASA wrote into them, with their own times.

    Exit code 1 if something there looks like a table and cannot be used; the others are registered all the same.
    """
    from dsa110_contimg.io.discovery import discover_caltables

    settings = read_settings(state_dir=state_dir)
    tables, problems = discover_caltables(directory.absolute(), _halves(settings))
    if not dry_run:
        registry, _ = _registry(state_dir, create=True)
        registry.register(tables, run_label=run_label)
    rows = [{"group" if k == "group_id" else k: v for k, v in vars(table).items()} for table in tables]
    columns = {name: how for name, how in _COLUMNS.items() if name != "status"} | {"path": ""}
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1, default=str) + "\n")
    else:
        show(rows, columns, as_json, "Found" if dry_run else "Registered")
    show_errors(problems)
    if problems:
        raise typer.Exit(1)


def _halves(settings: Settings) -> dict[str, float]:
    """Half-widths of the validity by kind (days), as configured for solving."""
    options = settings.options.calibrate
    bandpass, gains = options.bandpass_hours / 24, options.gain_minutes / 1440
    slow = dict.fromkeys(("K", "B", "BA", "BP", "FLUX"), bandpass)
    return slow | dict.fromkeys(("G", "GA", "GP", "2G"), gains)


def _set_or_path(which: str) -> str | Path:
    """Names of sets hold no slash; a table is given by its path."""
    path = Path(which)
    return path.absolute() if "/" in which or path.is_dir() else which


def _moment(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise StateError("Not a moment", found=text, expected="UTC as YYYY-MM-DD[THH:MM:SS]") from error
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment


def _words(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {figure}" for name, figure in value.items()) or "none"
    if isinstance(value, list):
        windows = [f"[{item[0]:.5f}, {item[1]:.5f})" if isinstance(item, list) else str(item) for item in value]
        return ", ".join(windows) or "none"
    return f"{value:.10g}" if isinstance(value, float) else str(value)
