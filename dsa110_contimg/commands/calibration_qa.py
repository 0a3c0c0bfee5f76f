"""``dsa110 calibrate apply`` and ``dsa110 calibrate qa``: use tables, and judge them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from dsa110_contimg.commands.console import Json, StateDir, bars, out, read_settings, show, show_errors
from dsa110_contimg.exceptions import InputError

MeasurementSetPath = Annotated[
    Path, typer.Argument(metavar="MS", help="A Measurement Set that dsa110 has written, of one field and window.")
]
Tables = Annotated[
    list[Path],
    typer.Option(
        "--tables", help="A CASA calibration table; give the option once for each. The order does not matter."
    ),
]
CalWt = Annotated[bool, typer.Option("--calwt/--no-calwt", help="Scale the weights with the gains, as CASA's calwt.")]
Which = Annotated[list[str], typer.Argument(metavar="GROUP|TABLE...", help="A group in the registry, or tables.")]
Corrected = Annotated[
    Path | None, typer.Option("--ms", help="The Measurement Set corrected with them; judges the data, too.")
]
Previous = Annotated[
    list[Path] | None, typer.Option("--previous", help="A table of the calibration before; once for each.")
]
Own = Annotated[Path | None, typer.Option("--bounds", help="Bounds of your own, like data/bounds.yaml.")]
Out = Annotated[
    Path | None, typer.Option("--out", help="Directory of the report; default: calibration in PIPELINE_REPORTS_DIR.")
]
Report = Annotated[bool, typer.Option("--report/--no-report", help="Make the notebook and the page as well.")]


def apply(path: MeasurementSetPath, tables: Tables, calwt: CalWt = False) -> None:
    """Correct a Measurement Set with calibration tables: DATA becomes CORRECTED_DATA, flags are propagated."""
    from dsa110_contimg.stages.apply import correct

    read_settings()
    with bars() as shown:
        task = shown.add_task(f"correcting {path.name}", total=None)
        correct(
            path.absolute(),
            tuple(table.absolute() for table in tables),
            calwt=calwt,
            progress=lambda done, total: shown.update(task, completed=done, total=total),
        )
    out.print(f"CORRECTED_DATA of {path}", soft_wrap=True)


def qa(
    which: Which,
    measurement_set: Corrected = None,
    previous: Previous = None,
    bounds: Own = None,
    out_dir: Out = None,
    report: Report = True,
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Judge a calibration: print its figures, and make a report. Exit code 1 if it is bad."""
    from dsa110_contimg.reports.calibration import CalibrationReview

    settings = read_settings(state_dir=state_dir)
    parameters = _parameters(which, previous or [])
    parameters |= {name: str(path.absolute()) for name, path in (("measurement_set", measurement_set),
                                                                 ("bounds", bounds)) if path is not None}  # fmt: skip
    parameters["state_dir"] = str(settings.state_dir)
    review = CalibrationReview.open(**parameters)
    verdict = review.judgement
    if as_json:
        sys.stdout.write(json.dumps(review.verdict.to_dict(), indent=1) + "\n")
    else:
        rows = [
            {
                "table": f.table,
                "figure": f.bound.label,
                "value": f.text,
                "good": f.bound.good_text(),
                "verdict": f.level,
            }
            for f in verdict.figures
        ]
        show(rows, dict.fromkeys(("table", "figure", "value", "good", "verdict"), ""), as_json=False, title="Figures")
        out.print(f"verdict: {verdict.level}")
    if report:
        _report(parameters, (out_dir or settings.reports_dir / "calibration").absolute(), quiet=as_json)
    if verdict.failed():
        raise typer.Exit(1)


def _parameters(which: list[str], previous: list[Path]) -> dict[str, str]:
    """A group by its time, or tables by their paths."""
    paths = [Path(one) for one in which]
    if len(which) == 1 and not paths[0].exists():
        return {"group_id": which[0]}
    missing = [path for path in (*paths, *previous) if not path.exists()]
    if missing:
        raise InputError("No such table", path=missing[0], found="nothing", expected="a CASA calibration table")
    now, before = ("\n".join(str(path.absolute()) for path in some) for some in (paths, previous))
    return {"tables": now, "previous": before}


def _report(parameters: dict[str, str], out_dir: Path, *, quiet: bool) -> None:
    from dsa110_contimg.reports import run_template, template_path

    name = parameters.get("group_id") or Path(parameters["tables"].splitlines()[0]).name
    with bars() as shown:
        task = shown.add_task("report", total=None)
        product = run_template(
            template_path("calibration_qa"),
            out_dir,
            parameters,
            name=f"{name}.calibration_qa",
            title=f"Calibration {name}",
            progress=lambda done, total, cell: shown.update(task, description=cell, completed=done, total=total),
        )
    if product.error:
        show_errors([product.error])
    if not quiet:
        out.print(f"report: {product.html}", soft_wrap=True)
