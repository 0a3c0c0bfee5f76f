"""``dsa110 qa``: plots of a Measurement Set, for a look at the data themselves, and the verdict on an image."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.commands.console import Json, StateDir, bars, out, read_settings, show

app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Look at visibilities; judge images.")

MeasurementSetPath = Annotated[Path, typer.Argument(metavar="MS", help="A Measurement Set of any telescope.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Directory of the pages; default: qa/<name> in PIPELINE_REPORTS_DIR.")
]


Column = Annotated[str, typer.Option(help="DATA, CORRECTED_DATA or MODEL_DATA.")]
Field = Annotated[int | None, typer.Option(min=0, help="Only this row of FIELD; default: all.")]
Window = Annotated[int | None, typer.Option("--spw", min=0, help="Only this row of DATA_DESCRIPTION; default: all.")]


@app.command("fast-plots")
def fast_plots(
    path: MeasurementSetPath,
    out_dir: Out = None,
    column: Column = "DATA",
    field: Field = None,
    spw: Window = None,
) -> None:
    """Amplitude, phase, time, frequency and uv pages, without CASA."""
    from dsa110_contimg.reports.quicklook import fast_plots as run

    _draw(run, path, out_dir, column=column, field=field, spw=spw)


@app.command()
def quicklooks(
    path: MeasurementSetPath,
    out_dir: Out = None,
    column: Column = "DATA",
    field: Field = None,
    spw: Window = None,
) -> None:
    """The same, and the pages of shadeMS where that program is installed."""
    from dsa110_contimg.reports.quicklook import quicklooks as run

    _draw(run, path, out_dir, column=column, field=field, spw=spw)


Which = Annotated[str, typer.Argument(metavar="PATH|GROUP", help="A restored FITS image, or a group that has one.")]
Own = Annotated[Path | None, typer.Option("--bounds", help="Bounds of your own, like data/bounds.yaml.")]


@app.command()
def image(which: Which, bounds: Own = None, state_dir: StateDir = None, as_json: Json = False) -> None:
    """Judge an image: print its figures against their bounds. Exit code 1 if it is bad."""
    from dsa110_contimg.reports.imaging import ImageReview

    settings = read_settings(state_dir=state_dir)
    review = ImageReview.open(which, settings.state_dir, bounds and bounds.absolute())
    verdict = review.verdict
    rows = [
        {"figure": f.bound.label, "value": f.text, "good": f.bound.good_text(), "verdict": f.level}
        for f in verdict.figures
    ]
    if as_json:
        body: dict[str, Any] = {"image": str(review.image.path), "group": review.image.group_id, "level": verdict.level}
        body |= {"bounds_date": verdict.bounds_date, "reasons": list(verdict.reasons), "figures": rows}
        sys.stdout.write(json.dumps(body, indent=1) + "\n")
    else:
        show(rows, dict.fromkeys(("figure", "value", "good", "verdict"), ""), as_json=False, title="Figures")
        out.print(f"verdict: {verdict.level}")
    if verdict.failed():
        raise typer.Exit(1)


def _draw(run: Any, path: Path, out_dir: Path | None, **which: Any) -> None:
    settings = read_settings()
    target = settings.reports_dir / "qa" / path.name.removesuffix(".ms") if out_dir is None else out_dir
    with bars() as shown:
        task = shown.add_task(f"drawing {path.name}", total=None)
        page = run(
            path.absolute(),
            target.absolute(),
            progress=lambda done, total: shown.update(task, completed=done, total=total),
            **which,
        )
    out.print(f"pages: {page}", soft_wrap=True)
