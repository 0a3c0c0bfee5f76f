"""The command line, thin: it reads the settings, calls one function, and shows what came of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.table import Table

from dsa110_contimg.commands import beam, calibrate, calibration_qa, caltables, convert, image, qa, search
from dsa110_contimg.commands.console import Json, StateDir, bars, out, read_settings, show, show_errors
from dsa110_contimg.exceptions import ContimgError
from dsa110_contimg.settings import Settings

app = typer.Typer(
    name="dsa110",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    help="""The continuum pipeline of the DSA-110: subband files in, images, fluxes and reports out.

[bold]A first look[/bold]: [cyan]dsa110 demo[/cyan] simulates a night and processes it.
[bold]Your data[/bold]: [cyan]dsa110 process /data/incoming[/cyan], then open reports/index.html.
Where things go is shown, with the reason, by [cyan]dsa110 config[/cyan].""",
)
simulate_app = typer.Typer(no_args_is_help=True, help="Make files as the telescope would, with their truth.")
app.add_typer(simulate_app, name="simulate")

calibrate_app = typer.Typer(no_args_is_help=True, help="Find calibrators, solve, apply, judge.")
calibrate_app.command("search")(search.search)
calibrate_app.command("solve")(calibrate.solve)
calibrate_app.command("apply")(calibration_qa.apply)
calibrate_app.command("qa")(calibration_qa.qa)

app.add_typer(convert.app, name="convert")
app.add_typer(calibrate_app, name="calibrate")
app.add_typer(caltables.app, name="caltables")
app.add_typer(qa.app, name="qa")
app.add_typer(beam.app, name="beam")
app.command("image")(image.image)

Workers = Annotated[int, typer.Option(min=1, max=16, help="Groups processed at a time.")]


# ---- simulate -----------------------------------------------------------------------------------------------------


@simulate_app.command("night")
def simulate_night(
    out_dir: Annotated[Path, typer.Option("--out", help="Directory for the files and the truth.")],
    start: Annotated[str, typer.Option(help="UTC start of the first group, YYYY-MM-DDTHH:MM:SS.")],
    dec: Annotated[float, typer.Option(help="Apparent pointing declination (deg).")] = 16.64,
    groups: Annotated[int, typer.Option(min=1, help="Number of 309 s groups.")] = 6,
    antennas: Annotated[int, typer.Option(min=2, max=96, help="Number of antennas.")] = 96,
    seed: Annotated[int, typer.Option(help="Seed of noise, gains and unknown spectral indices.")] = 1,
    noise: Annotated[bool, typer.Option(help="Thermal noise.")] = True,
    gains: Annotated[bool, typer.Option(help="Antenna gains, bandpass and drift.")] = True,
) -> None:
    """Simulate a night: real catalogued sources drifting through the beam, written as UVH5 subband files."""
    from dsa110_contimg.simulate.plan import NightOptions

    try:
        options = NightOptions(
            start=start, n_groups=groups, n_antennas=antennas, dec_deg=dec, seed=seed, noise=noise, gains=gains
        )
    except ValidationError as error:
        raise typer.BadParameter("; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())) from error
    _simulate(options, out_dir)


def _simulate(options: Any, out_dir: Path) -> None:
    from dsa110_contimg.simulate.night import simulate_night as run

    with bars() as shown:
        task = shown.add_task("simulating", total=None)

        def progress(done: int, total: int, name: str) -> None:
            shown.update(task, completed=done, total=total, description=f"simulating {name}")

        made = run(options, out_dir, progress=progress)
    how = "was there already" if made.resumed else "made"
    out.print(f"{len(made.group_ids)} groups, {made.n_files} files in {out_dir} ({how}); truth in {made.truth_path}")


# ---- process ------------------------------------------------------------------------------------------------------


@app.command()
def process(
    directory: Annotated[Path, typer.Argument(help="Directory of the subband files.")],
    catalog: Annotated[
        Path | None,
        typer.Option(
            help="Your own source list (CSV, FITS, VOTable: name, ra_deg, dec_deg, flux_jy[, spectral_index]) in place "
            "of the packaged catalogue, for calibration and photometry."
        ),
    ] = None,
    output_dir: Annotated[Path | None, typer.Option(help="Products (PIPELINE_OUTPUT_DIR).")] = None,
    reports_dir: Annotated[Path | None, typer.Option(help="Reports (PIPELINE_REPORTS_DIR).")] = None,
    state_dir: Annotated[Path | None, typer.Option(help="State database (PIPELINE_STATE_DIR).")] = None,
    scratch_dir: Annotated[Path | None, typer.Option(help="Scratch (PIPELINE_SCRATCH_DIR).")] = None,
    workers: Workers = 2,
) -> None:
    """Process every complete group of a directory: images, fluxes, and a report for each.

    Groups with a calibrator come first, then the oldest. What is done already is not done again.
    """
    settings = read_settings(
        output_dir=output_dir, reports_dir=reports_dir, state_dir=state_dir, scratch_dir=scratch_dir
    )
    if not _process(directory, settings, catalog, workers):
        raise typer.Exit(1)


def _process(directory: Path, settings: Settings, catalog: Path | None, workers: int) -> bool:
    from dsa110_contimg.service.worker import process as run

    with bars() as shown:
        tasks: dict[str, Any] = {}

        def tell(group: str, done: int, total: int, cell: str) -> None:
            if group not in tasks:
                tasks[group] = shown.add_task(group, total=total)
            shown.update(tasks[group], completed=done, total=total, description=f"{group} {cell}")

        done = run(directory.absolute(), settings, settings.options, catalog and catalog.absolute(), tell, workers)
    table = Table(title="Groups")
    for name in ("group", "calibrator", "status", "verdict", "report"):
        table.add_column(name, overflow="fold")
    for o in done.outcomes:
        table.add_row(o.group_id, "yes" if o.is_calibrator else "", o.status, o.verdict, str(o.page))
    out.print(table)
    show_errors(done.problems)
    show_errors(f"{o.group_id}, {o.error}" for o in done.outcomes if o.error)
    out.print(f"reports: {done.index}", soft_wrap=True)
    return done.ok


@app.command()
def demo(
    directory: Annotated[Path, typer.Option("--out", help="Directory for everything the demonstration makes.")] = Path(
        "demo"
    ),
    antennas: Annotated[int, typer.Option(min=16, max=96, help="Number of antennas.")] = 48,
    workers: Workers = 2,
) -> None:
    """Simulate a night of six groups around a transit of 3C138, process it, and say where the reports are."""
    from dsa110_contimg.simulate.plan import demo_night_options

    raw = directory / "raw"
    _simulate(demo_night_options(seed=1, n_antennas=antennas), raw)
    settings = read_settings(
        output_dir=directory / "products",
        reports_dir=directory / "reports",
        state_dir=directory / "state",
        scratch_dir=directory / "scratch",
    )
    ok = _process(raw, settings, None, workers)
    images(state_dir=settings.state_dir, as_json=False)
    if not ok:
        raise typer.Exit(1)


# ---- lists --------------------------------------------------------------------------------------------------------

Group = Annotated[str | None, typer.Option(help="Only this group.")]


def _products(state_dir: Path | None) -> Any:
    from dsa110_contimg.state.database import open_database
    from dsa110_contimg.state.products import Products

    return Products(open_database(read_settings(state_dir=state_dir).state_dir, create=False))


@app.command()
def images(state_dir: StateDir = None, group: Group = None, as_json: Json = False) -> None:
    """List the images: path, group, tier, beam, noise."""
    rows = _products(state_dir).list_images(group)
    if not as_json:
        for row in rows:
            major, minor, angle = row["beam"]
            row |= {"beam": f'{major:.1f}" x {minor:.1f}", {angle:.0f} deg', "noise_mjy": row["noise_jy"] * 1e3}
    show(rows, {"group": "", "tier": "", "beam": "", "noise_mjy": ".3f", "path": ""}, as_json, "Images")


@app.command()
def photometry(
    state_dir: StateDir = None,
    group: Group = None,
    source: Annotated[str | None, typer.Option(help="Only this source.")] = None,
    as_json: Json = False,
) -> None:
    """List the fluxes: beam-corrected, in Jy at 1.4 GHz, with 1-sigma errors that include the calibration's."""
    rows = _products(state_dir).list_photometry(source=source, group=group)
    columns = {"source": "", "group": "", "mjd": ".5f", "flux_jy": ".4f", "flux_error_jy": ".4f", "ratio": ".3f"}
    show(rows, columns, as_json, "Photometry")


@app.command()
def config(as_json: Json = False) -> None:
    """Show every setting, its value and where it comes from."""
    rows = [
        {k: str(v) if isinstance(v, Path) else v for k, v in item._asdict().items()}
        for item in read_settings().explain()
    ]
    if as_json:
        sys.stdout.write(json.dumps(rows, indent=1, default=str) + "\n")
        return
    show(rows, dict.fromkeys(("name", "value", "origin", "help"), ""), as_json, "Settings")


def main() -> None:
    """Entry point: our errors become one paragraph and exit code 1."""
    try:
        app()
    except ContimgError as error:
        show_errors([error])
        raise SystemExit(1) from None


def photometry_main() -> None:
    """``dsa110-photometry``, as operators know it: ``dsa110 photometry``."""
    sys.argv.insert(1, "photometry")
    main()


def registry_main() -> None:
    """``dsa110-registry``, as operators know it: ``dsa110 caltables``."""
    sys.argv.insert(1, "caltables")
    main()


def convert_main() -> None:
    """``dsa110-convert``, as operators know it: ``dsa110 convert``."""
    sys.argv.insert(1, "convert")
    main()


if __name__ == "__main__":
    main()
