"""What all commands share: settings read at the door, progress bars, tables, and errors in one paragraph."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dsa110_contimg.settings import Settings, apply_process_environment, load_settings

err = Console(stderr=True)
out = Console()

Json = Annotated[bool, typer.Option("--json", help="Print a JSON array instead of a table.")]
StateDir = Annotated[Path | None, typer.Option("--state-dir", help="State database (PIPELINE_STATE_DIR).")]
ScratchDir = Annotated[Path | None, typer.Option("--scratch-dir", help="Scratch (PIPELINE_SCRATCH_DIR).")]


def read_settings(**overrides: Any) -> Settings:
    """The settings of this command, what was given as an option over everything else; sets up the process by them."""
    settings = load_settings(**{name: value for name, value in overrides.items() if value is not None})
    apply_process_environment(settings)
    return settings


@contextmanager
def bars() -> Iterator[Progress]:
    """Progress bars on standard error; they stay where that is a terminal."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=err, transient=not err.is_terminal) as progress:
        yield progress


def show(rows: list[dict[str, Any]], columns: dict[str, str], as_json: bool, title: str) -> None:
    """Rows as JSON, or as a table of some columns with a format each."""
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1) + "\n")
        return
    table = Table(title=f"{title} ({len(rows)})")
    for name in columns:
        table.add_column(name, justify="left" if columns[name] == "" else "right", overflow="fold")
    for row in rows:
        cells = ("" if row.get(n) is None else format(row[n], f) if f else str(row[n]) for n, f in columns.items())
        table.add_row(*(escape(cell) for cell in cells))
    out.print(table)


def show_errors(errors: Iterable[object], word: str = "error") -> None:
    """One paragraph each, on standard error."""
    for error in errors:
        err.print(f"[red]{word}[/red] {escape(str(error))}", soft_wrap=True, highlight=False)
