"""``dsa110 image``: a Measurement Set or a group to an image, with options of one's own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from dsa110_contimg.commands.console import Json, ScratchDir, StateDir, bars, out, read_settings, show
from dsa110_contimg.commands.options import chosen, with_flags
from dsa110_contimg.options import ImageOptions

_COLUMNS = {"group": "", "tier": "", "pixels": "d", "beam": "", "noise_mjy": ".3f", "dynamic_range": ".0f", "path": ""}
_AS_OPERATORS_SAY = {
    "n_pixels": "--size",
    "cell_arcsec": "--cell",
    "max_iterations": "--niter",
    "threshold_sigma": "--threshold",
}
_Keep = Annotated[
    bool | None,
    typer.Option(
        "--casa-image/--skip-fits",
        help="Write the restored image as a CASA image, too; or write no image at all, and register none: only what is "
        "printed, and the picture.",
    ),
]
_Field = Annotated[
    int | None, typer.Option("--field", help="Field of another telescope's Measurement Set, by its number.")
]


@with_flags(ImageOptions, _AS_OPERATORS_SAY)
def image(  # noqa: PLR0913 - an argument is a flag of the command
    target: Annotated[
        Path,
        typer.Argument(
            metavar="MS|GROUP",
            help="A calibrated Measurement Set, or a group in PIPELINE_INPUT_DIR by its time (2026-01-26T04:51:13), "
            "which is converted, flagged and calibrated first where that is not done. A Measurement Set of another "
            "telescope is imaged as it is: CORRECTED_DATA, or DATA where it has no other.",
        ),
    ],
    given: dict[str, Any],
    out_dir: Annotated[
        Path | None, typer.Option("--out", help="Products (PIPELINE_OUTPUT_DIR); images go to its folder images.")
    ] = None,
    input_dir: Annotated[Path | None, typer.Option("--input", help="Subband files (PIPELINE_INPUT_DIR).")] = None,
    state_dir: StateDir = None,
    scratch_dir: ScratchDir = None,
    picture: Annotated[
        Path | None, typer.Option("--picture", help="Draw the image with its catalogue sources to this PNG, too.")
    ] = None,
    keep: _Keep = None,
    field: _Field = None,
    as_json: Json = False,
) -> None:
    """Make an image.

    With the configured options it is the group's own, as the pipeline makes it. With others it goes to a folder of its
    own and never replaces that one. Options that are not given are as configured (IMG_IMSIZE, IMG_ROBUST, IMG_NITER,
    IMG_THRESHOLD among others).
    """
    settings = read_settings(output_dir=out_dir, input_dir=input_dir, state_dir=state_dir, scratch_dir=scratch_dir)
    options = chosen(settings.options.image, given)

    from dsa110_contimg.service.imaging import make_image

    with bars() as shown:
        task = shown.add_task("imaging", total=None)
        made = make_image(
            target,
            settings,
            options,
            lambda step, done, total: shown.update(task, description=step, completed=done, total=total),
            field=field,
            skip_fits=keep is False,
            casa_image=keep is True,
        )
    path = made.product.path if made.product else None
    show([_row(made.view, made.group_id, options.tier, path)], _COLUMNS, as_json, "Image")
    if options.tier == "development" and not as_json:
        out.print("NON-SCIENCE: tier development")
    if picture is not None:
        _draw(made.view, picture)


def _row(view: Any, group: str, tier: str, path: Path | None) -> dict[str, Any]:
    import numpy as np

    major, minor, angle = view.attrs["beam_deg"]
    noise = float(view.attrs["noise_jy"])
    peak = float(np.nanmax(view["SKY"].values))
    return {
        "group": group,
        "tier": tier,
        "pixels": int(view.sizes["l"]),
        "beam": f'{major * 3600:.1f}" x {minor * 3600:.1f}", {angle:.0f} deg',
        "noise_mjy": noise * 1e3,
        "dynamic_range": peak / noise,
        "path": None if path is None else str(path),
    }


def _draw(view: Any, path: Path) -> None:
    from dsa110_contimg import views
    from dsa110_contimg.exceptions import OutputError
    from dsa110_contimg.io import catalogs

    try:
        views.sky(view, catalogs.packaged_catalog()).savefig(path, format="png", dpi=110)
    except OSError as error:
        raise OutputError("The picture cannot be written", path=path, found=error.strerror) from error
