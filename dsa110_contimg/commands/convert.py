"""``dsa110 convert``: subband files to Measurement Sets, and the checks that one passes."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import Progress
from rich.table import Table

from dsa110_contimg.commands.console import ScratchDir, StateDir, bars, out, read_settings, show, show_errors
from dsa110_contimg.commands.options import chosen, with_flags
from dsa110_contimg.options import ConvertOptions
from dsa110_contimg.settings import Settings

if TYPE_CHECKING:
    from dsa110_contimg.io.groups import Discovery
    from dsa110_contimg.records import SubbandGroup

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="""Write the subband files of a group as one Measurement Set, and check it.

A group is the 16 files of one observation, found by the time inside them: their names differ by seconds. With 12 to 15
files the missing subbands are written as flagged data. A Measurement Set that fails a check is moved to failed/, with
what was found beside it, and is not registered.

[bold]One group[/bold]: [cyan]dsa110 convert single raw/2026-01-25T22:26:05[/cyan]

[bold]A window[/bold]: [cyan]dsa110 convert groups /data/incoming --start 2026-01-25T22:00 --end 2026-01-26[/cyan];
with [cyan]--dry-run[/cyan], only say what there is.

[bold]Check one again[/bold]: [cyan]dsa110 convert validate 2026-01-25T22:26:05.ms[/cyan]""",
)

Out = Annotated[
    Path | None, typer.Option("--out", help="Products (PIPELINE_OUTPUT_DIR); Measurement Sets go to its folder ms.")
]
ChunkDuration = Annotated[
    float | None,
    typer.Option(
        metavar="MIN",
        help="Length of the groups as recorded, in minutes: 5 stands for 24 integrations (309.2 s), others in "
        "proportion. Files of one group begin within a tenth of it (30 s). A group of another length is refused, and "
        "its length told. Default: 5, unless configured (PIPELINE_CHUNK_DURATION).",
    ),
]
_FLAGS = with_flags(ConvertOptions, {"smoke_test": "--validate/--no-validate"})


@app.command()
@_FLAGS
def single(
    group: Annotated[
        Path,
        typer.Argument(
            metavar="GROUP_OR_DIR",
            help="A directory that holds one group, a directory and a time (raw/2026-01-25T22:26:05), a time alone "
            "(looked for in PIPELINE_INPUT_DIR), or one of the group's files.",
        ),
    ],
    given: dict[str, Any],
    out_dir: Out = None,
    state_dir: StateDir = None,
    scratch_dir: ScratchDir = None,
) -> None:
    """Convert one group, of whatever length it is."""
    settings = read_settings(output_dir=out_dir, state_dir=state_dir, scratch_dir=scratch_dir)
    options = chosen(settings.options.convert, given)

    from dsa110_contimg.service.conversion import find_one

    found = find_one(group, settings)
    _show_problems(found)
    if not _convert(found.groups, settings, options) or found.losses:
        raise typer.Exit(1)


@app.command()
@_FLAGS
def groups(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Directory of the subband files.")],
    given: dict[str, Any],
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[OUT START END]", help="Short for --out, --start and --end, in this order."),
    ] = None,
    out_dir: Out = None,
    start: Annotated[str | None, typer.Option(help="First begin of a group, UTC: YYYY-MM-DD[THH:MM:SS].")] = None,
    end: Annotated[str | None, typer.Option(help="Last begin of a group, UTC: YYYY-MM-DD[THH:MM:SS].")] = None,
    chunk_duration: ChunkDuration = None,
    state_dir: StateDir = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say which groups there are.")] = False,
) -> None:
    """Convert every group of a directory that begins in a window. What is done already is not done again.

    Headers are read once: the state database remembers each file as long as it stays as it is. Exit code 1 if a group
    failed, or a file that no other one stands in for cannot be used.
    """
    if words:
        out_dir, start, end = _operators(words, out_dir, start, end)
    settings = read_settings(output_dir=out_dir, state_dir=state_dir, chunk_duration=chunk_duration)
    options = chosen(settings.options.convert, given)

    from dsa110_contimg.io.groups import moment
    from dsa110_contimg.service.conversion import find_groups

    begin, last = (None if text is None else moment(text) for text in (start, end))
    if begin is not None and last is not None and begin > last:
        raise typer.BadParameter(f"--start {start} is after --end {end}")
    with bars() as shown:
        headers = _Bar(shown, "reading headers")
        found = find_groups(directory, settings, begin, last, headers.update)
    _show_problems(found)
    if dry_run:
        _list(found.groups)
    elif not _convert(found.groups, settings, options):
        raise typer.Exit(1)
    if found.losses:
        raise typer.Exit(1)


@app.command()
def validate(
    path: Annotated[Path, typer.Argument(metavar="MS", help="A Measurement Set that dsa110 has written.")],
    raw: Annotated[
        Path | None,
        typer.Option(help="Directory of its subband files; then some visibilities of each are compared with them."),
    ] = None,
    casa: Annotated[bool, typer.Option(help="Let CASA open it and solve a gain on one integration.")] = True,
    scratch_dir: ScratchDir = None,
    state_dir: StateDir = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Check a Measurement Set and print what was found and expected. Exit code 1 if a check failed."""
    from dsa110_contimg.io.groups import look_up
    from dsa110_contimg.io.ms import read_layout
    from dsa110_contimg.stages.validate import validate as run

    settings = read_settings(scratch_dir=scratch_dir, state_dir=state_dir)
    group = None
    if raw is not None:
        found = look_up(raw, read_layout(path, several=True).group_id)
        _show_problems(found)
        (group,) = found.groups
    checked = run(
        path.absolute(),
        group,
        workdir=settings.scratch_dir / "casa",
        casa_too=casa,
        measures_cache=settings.state_dir / "measures",
    )
    rows = [dict(zip(("check", "result", "found", "expected"), check, strict=True)) for check in checked.checks]
    if as_json:
        sys.stdout.write(json.dumps({"path": str(path), "ok": checked.ok, "checks": rows}, indent=1) + "\n")
    else:
        show(rows, dict.fromkeys(rows[0], ""), as_json=False, title=f"Checks of {path.name}")
    if not checked.ok:
        raise typer.Exit(1)


def _operators(words: Sequence[str], out_dir: Path | None, start: str | None, end: str | None) -> tuple[Path, str, str]:
    """Output directory, start and end as operators give them: as words after the input directory."""
    if len(words) != 3 or not (out_dir is start is end is None):
        raise typer.BadParameter(
            f"got {' '.join(words)}; expected OUT START END after DIR, or --out, --start and --end instead"
        )
    return Path(words[0]), words[1], words[2]


def _show_problems(found: Discovery) -> None:
    show_errors(found.losses)
    show_errors(found.duplicates, "note")


def _list(found: Sequence[SubbandGroup]) -> None:
    rows = [
        {
            "group": group.group_id,
            "subbands": len(group.files),
            "missing": _missing(group),
            "dec": group.pointing_dec_deg,
            "integrations": group.n_integrations,
        }
        for group in found
    ]
    columns = {"group": "", "subbands": "d", "missing": "", "dec": ".3f", "integrations": "d"}
    show(rows, columns, as_json=False, title="Groups")


def _convert(found: Sequence[SubbandGroup], settings: Settings, options: ConvertOptions) -> bool:
    """Convert groups under a progress bar, list what came of them, and say whether all went well."""
    from dsa110_contimg.service.conversion import convert_groups

    table = Table(title=f"Measurement Sets ({len(found)})")
    for name in ("group", "status", "missing", "path"):
        table.add_column(name, overflow="fold")
    failed = []
    with bars() as shown:
        overall = shown.add_task("converting", total=len(found))
        current = _Bar(shown, "")
        for one in convert_groups(found, settings, options, current.of_group):
            shown.advance(overall)
            path = "" if one.product is None else str(one.product.path)
            table.add_row(one.group.group_id, one.status, _missing(one.group), path)
            failed += [] if one.error is None else [f"{one.group.group_id}: {one.error}"]
    out.print(table)
    show_errors(failed)
    return not failed


class _Bar:
    """A bar that appears when there is something to tell."""

    def __init__(self, shown: Progress, what: str) -> None:
        self.shown = shown
        self.task = shown.add_task(what, total=None, visible=False)

    def update(self, done: int, total: int) -> None:
        self.shown.update(self.task, completed=done, total=total, visible=True)

    def of_group(self, group: str, done: int, total: int) -> None:
        self.shown.update(self.task, description=group)
        self.update(done, total)


def _missing(group: SubbandGroup) -> str:
    return ", ".join(f"sb{subband:02d}" for subband in group.missing)
