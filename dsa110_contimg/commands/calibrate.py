"""``dsa110 calibrate solve``: bandpass, gains and phases of a calibrator's group."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.commands.console import Json, ScratchDir, StateDir, bars, read_settings, show
from dsa110_contimg.commands.options import chosen, with_flags
from dsa110_contimg.options import CalibrateOptions

_TABLES = {"kind": "", "calibrator": "", "refant": "", "flagged_fraction": ".1%", "median_snr": ".0f", "path": ""}
_REFANTS = {"rank": "d", "antenna": "", "why": ""}
_AS_OPERATORS_SAY = {
    "phase_interval_s": "--timebin",
    "channel_bin": "--chanbin",
    "fields": "--field",
    "do_k": "--do-k/--no-do-k",
}


@with_flags(CalibrateOptions, _AS_OPERATORS_SAY)
def solve(
    target: Annotated[
        Path,
        typer.Argument(
            metavar="MS|GROUP",
            help="A flagged Measurement Set, or a group in PIPELINE_INPUT_DIR by its time (2026-01-26T04:51:13), which "
            "is converted and flagged first.",
        ),
    ],
    given: dict[str, Any],
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Products (PIPELINE_OUTPUT_DIR); tables go to its folder caltables.")
    ] = None,
    input_dir: Annotated[Path | None, typer.Option("--input", help="Subband files (PIPELINE_INPUT_DIR).")] = None,
    state_dir: StateDir = None,
    scratch_dir: ScratchDir = None,
    show_refants: Annotated[
        bool, typer.Option("--refants", help="List the ranking of the reference antennas, too.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Solve and register the calibration of a group that a calibrator crosses.

    The catalogue sources of the field are the model, unless --model-source says otherwise; their response to the
    drifting beam is in it. Without a calibrator in the beam, or if the solutions fail, nothing is registered and the
    exit code is 1.
    """
    settings = read_settings(output_dir=out_dir, input_dir=input_dir, state_dir=state_dir, scratch_dir=scratch_dir)
    options = chosen(settings.options.calibrate, given)

    from dsa110_contimg.service.solving import solve as run

    with bars() as shown:
        task = shown.add_task("solving", total=None)
        solved = run(
            target,
            settings,
            options,
            lambda step, done, total: shown.update(task, description=step, completed=done, total=total),
        )
    tables = [
        {"kind": t.kind, "calibrator": t.calibrator, "refant": t.refant, "path": str(t.path)}
        | {"flagged_fraction": t.flagged_fraction, "median_snr": t.median_snr}
        for t in solved.tables
    ]
    show(tables, _TABLES, as_json, f"Calibration of {solved.group_id}")
    if show_refants and not as_json:
        ranked = [{"rank": n, "antenna": a.name, "why": a.reasons} for n, a in enumerate(solved.ranking, 1)]
        show(ranked, _REFANTS, as_json=False, title="Reference antennas")
