"""An image under review: its planes, the fluxes measured in it, and the verdict.

`ImageReview.open` takes a path or a group, as ``dsa110 qa image`` does; the page of a group asks for `judge_product`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from astropy.table import Table

from dsa110_contimg.exceptions import InputError, StateError
from dsa110_contimg.io import fits
from dsa110_contimg.io.bounds import image_bounds
from dsa110_contimg.records import ImageProduct
from dsa110_contimg.science import judging
from dsa110_contimg.science.judging_image import ImagePlanes, expected_beam, judge_image
from dsa110_contimg.science.restoring import Beam
from dsa110_contimg.state.database import open_database
from dsa110_contimg.state.products import Products


def judge_product(
    image: ImageProduct, photometry: pd.DataFrame | None = None, *, bounds: Path | None = None
) -> judging.Verdict:
    """The verdict on a product, from its files and the fluxes measured in it.

    Parameters
    ----------
    image : ImageProduct
    photometry : DataFrame, optional
        Without it, neither scale nor positions are asked.
    bounds : Path, optional
        Bounds of one's own; by default the packaged ones.

    Raises
    ------
    CorruptFileError
        A file of the image is missing or unreadable.
    SettingsError
        The bounds do not parse.
    """
    header = fits.read_header(image.path)
    scheme, _, robust = str(header.get("WEIGHT", "")).partition(" ")
    try:
        expected = expected_beam(scheme, float(robust or 0.0), math.radians(image.dec_deg), image.frequency_hz)
    except ValueError:  # more than a robustness: a taper, whose beam is as large as was asked
        expected = None
    planes = ImagePlanes(
        restored=fits.read_plane(image.path),
        residual=fits.read_plane(image.residual_path),
        beam=Beam(*(math.radians(value) for value in (image.bmaj_deg, image.bmin_deg, image.bpa_deg))),
        cell=math.radians(image.cell_arcsec / 3600.0),
        thermal_noise_jy=image.thermal_noise_jy,
        expected_beam_rad=expected,
    )
    flagged = float(header["FLAGGED"]) if "FLAGGED" in header else None
    return judge_image(planes, image_bounds(bounds), photometry=photometry, flagged_fraction=flagged)


def product_from_files(path: Path) -> ImageProduct:
    """The record of an image that no database knows, from its header and the files beside it.

    The thermal noise is the header's (THERMAL), NaN without.

    Raises
    ------
    InputError
        It has no companions: not an image of ours, or one without its residual.
    CorruptFileError
        Not a FITS image.
    """
    header = fits.read_header(path)
    kinds = ("pbcor", "pb", "residual", "model", "psf", "smearing")
    beside = {kind: fits.companion(path, kind) for kind in kinds}
    needed = ("BMAJ", "BMIN", "BPA", "CDELT2", "MJD-OBS", "MJD-END")
    missing = [name for name in needed if name not in header] + [str(p) for p in beside.values() if not p.exists()]
    if missing:
        raise InputError(
            "Not a restored image with its companions", path=path, found=f"no {', '.join(missing)}",
            expected="<group>.image.fits as dsa110 writes it",
        )  # fmt: skip
    value = {name: float(header.get(name, math.nan)) for name in (*needed, "CRVAL1", "CRVAL2", "RESNOISE", "THERMAL")}
    return ImageProduct(
        path=path,
        pbcor_path=beside["pbcor"],
        pb_path=beside["pb"],
        residual_path=beside["residual"],
        model_path=beside["model"],
        psf_path=beside["psf"],
        smearing_path=beside["smearing"],
        group_id=str(header.get("OBJECT", path.name.partition(".")[0])),
        ra_deg=value["CRVAL1"],
        dec_deg=value["CRVAL2"],
        mjd_start=value["MJD-OBS"],
        mjd_end=value["MJD-END"],
        n_pixels=int(header["NAXIS1"]),
        cell_arcsec=value["CDELT2"] * 3600.0,
        bmaj_deg=value["BMAJ"],
        bmin_deg=value["BMIN"],
        bpa_deg=value["BPA"],
        noise_jy=value["RESNOISE"],
        thermal_noise_jy=value["THERMAL"],
        frequency_hz=float(header.get("RESTFRQ", math.nan)),
        flux_scale_error=math.nan,
    )


@dataclass(frozen=True)
class ImageReview:
    """An image, the fluxes measured in it if there are any, and what it is judged with.

    Attributes
    ----------
    bounds_path : None takes the packaged bounds.
    """

    image: ImageProduct
    photometry: pd.DataFrame | None = None
    bounds_path: Path | None = None

    @classmethod
    def open(cls, which: str, state_dir: Path, bounds: Path | None = None) -> ImageReview:
        """The review of an image by its path, or of the current image of a group.

        What the database knows of an image is taken from it; of another, header and companions must do, and fluxes
        are those of ``photometry/<group>.photometry.ecsv`` beside its directory.

        Raises
        ------
        InputError
            No such file, and no group with an image.
        StateError
            A group, and no database.
        """
        path = Path(which).absolute()
        if not path.exists():
            return cls._registered(which, state_dir, bounds)
        image = _known_as(path, state_dir) or product_from_files(path)
        table = path.parent.parent / "photometry" / f"{image.group_id}.photometry.ecsv"
        rows = Table.read(table, format="ascii.ecsv").to_pandas() if table.exists() else None
        if rows is not None and set(rows["image"]) != {str(path)}:
            rows = None
        return cls(image, rows, bounds)

    @classmethod
    def _registered(cls, group_id: str, state_dir: Path, bounds: Path | None) -> ImageReview:
        products = _products(state_dir)
        image = products.image(group_id)
        if image is None:
            known = sorted({str(row["group"]) for row in products.list_images()})
            raise InputError("No image of this name", found=group_id, expected=f"a FITS image, or one of {known}")
        rows = products.list_photometry(group=group_id)
        return cls(image, pd.DataFrame(rows).fillna(np.nan).infer_objects() if rows else None, bounds)

    @cached_property
    def verdict(self) -> judging.Verdict:
        """What it is worth."""
        return judge_product(self.image, self.photometry, bounds=self.bounds_path)


def _known_as(path: Path, state_dir: Path) -> ImageProduct | None:
    """The record of a file, if there is a database and it is the current image of its group there."""
    group_id = str(fits.read_header(path).get("OBJECT", ""))
    try:
        known = _products(state_dir).image(group_id)
    except StateError:
        return None
    return known if known is not None and known.path == path else None


def _products(state_dir: Path) -> Products:
    return Products(open_database(state_dir, create=False))
