"""``dsa110 beam``: the primary beam, measured from what the pipeline has made."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from dsa110_contimg.commands.console import Json, StateDir, bars, err, read_settings, show

app = typer.Typer(no_args_is_help=True, help="Measure the primary beam.")


@app.callback()
def beam() -> None:
    """Measure the primary beam."""


@app.command()
def fit(
    out: Annotated[Path, typer.Option("--out", help="Table to write (ECSV), for beam_table of the options.")],
    catalog: Annotated[
        Path | None, typer.Option(help="The source list that the groups were measured with; default: the packaged one.")
    ] = None,
    last_deg: Annotated[float, typer.Option(min=0.8, max=3.0, help="Where the profile ends (deg, at 1.4 GHz).")] = 2.1,
    knots: Annotated[int, typer.Option(min=1, max=20, help="Intervals of the spline; fewer are smoother.")] = 4,
    min_snr: Annotated[float, typer.Option(min=0.1, help="Least catalogue flux, in units of the noise.")] = 10.0,
    catalog_error: Annotated[
        float, typer.Option(min=0.0, max=0.5, help="Least relative error of a catalogue flux, of any source.")
    ] = 0.05,
    run_label: Annotated[str, typer.Option(help="Whose photometry; default: the pipeline's own.")] = "",
    state_dir: StateDir = None,
    as_json: Json = False,
) -> None:
    """Fit the beam to raw over catalogue fluxes of all groups, and write it as a table.

    Process with it by beam_table in the options of image (calibrate takes the same).
    """
    from dsa110_contimg.science.beamfit import FitLimits
    from dsa110_contimg.service.beams import fit as run

    settings = read_settings(state_dir=state_dir)
    limits = FitLimits(last_deg=last_deg, n_knots=knots, least_snr=min_snr, catalog_error=catalog_error)
    with bars() as shown:
        task = shown.add_task("reading images", total=None)
        found = run(
            settings,
            out.absolute(),
            catalog=catalog and catalog.absolute(),
            limits=limits,
            run_label=run_label,
            progress=lambda done, total: shown.update(task, completed=done, total=total),
        )
    rows = [
        {"angle_deg": float(a), "power": float(p), "error": float(e), "airy": float(y)}
        for a, p, e, y in zip(found.angle_deg, found.power, found.error, found.airy, strict=True)
    ]
    columns = {"angle_deg": ".2f", "power": ".4f", "error": ".4f", "airy": ".4f"}
    show(rows if as_json else rows[::6], columns, as_json, "Beam at 1.4 GHz")
    if not as_json:
        err.print(
            f"{found.n_measurements} fluxes of {found.n_sources} sources ({found.n_rejected} left out), flux scale "
            f"{found.scale:.3f}, reduced chi-square {found.chi_square:.2f}; written to {out}",
            highlight=False,
        )
