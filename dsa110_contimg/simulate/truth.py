"""The truth of a simulated night: what was put in, beside the files, for tests to compare with what comes out."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import CorruptFileError, InputError

TRUTH_NAME = "truth.json"
GAINS_NAME = "truth_gains.npz"
FORMAT = 1


@dataclass(frozen=True)
class GroupTruth:
    """What was put into one group.

    Attributes
    ----------
    group_id : UTC start of the first integration.
    mjd : (time,) centres of the integrations (MJD UTC).
    pointing_ra_deg, pointing_dec_deg : (time,) ICRS direction of hour angle 0 at the pointing declination.
    files : names of the files written.
    sources : names of the sources that were in the beam.
    rfi_fraction : share of the (time, channel) plane with interference.
    """

    group_id: str
    mjd: NDArray[np.float64]
    pointing_ra_deg: NDArray[np.float64]
    pointing_dec_deg: NDArray[np.float64]
    files: tuple[str, ...]
    sources: tuple[str, ...]
    dead_antennas: tuple[int, ...]
    missing_subbands: tuple[int, ...]
    truncated_subbands: tuple[int, ...]
    rfi_fraction: float


@dataclass(frozen=True)
class Truth:
    """What was put into a night.

    Attributes
    ----------
    options : the options it was made with, as plain values.
    sources : DataFrame
        Catalogue columns (name, ra_deg, dec_deg, flux_jy at 1.4 GHz, spectral_index, ...) of every simulated source.
    pointing_dec_rad : apparent declination of the pointing.
    station : (antenna,) station numbers, ascending.
    bandpass : (antenna, feed, channel) complex64; channels ascending in frequency, as in products.
    drift : (group, time, antenna, feed) complex64
    rfi : (group, time, channel) bool, channels ascending.
    visibility_noise_jy : noise of the real and of the imaginary part of one visibility; 0 if there is none.
    """

    options: dict[str, Any]
    sources: pd.DataFrame
    groups: tuple[GroupTruth, ...]
    pointing_dec_rad: float
    station: NDArray[np.int64]
    bandpass: NDArray[np.complex64]
    drift: NDArray[np.complex64]
    rfi: NDArray[np.bool_]
    visibility_noise_jy: float

    def group(self, group_id: str) -> GroupTruth:
        """The truth of one group.

        Raises
        ------
        InputError
            The night holds no such group.
        """
        for group in self.groups:
            if group.group_id == group_id:
                return group
        raise InputError(
            "The simulated night holds no such group", found=group_id, expected=[g.group_id for g in self.groups]
        )

    def gains(self, group_id: str) -> NDArray[np.complex64]:
        """(time, antenna, feed, channel) gains of a group: V_raw(1, 2) = conj(g1) g2 V, in a file's sign."""
        index = self.groups.index(self.group(group_id))
        return np.asarray(self.drift[index][..., None] * self.bandpass[None], np.complex64)


def save_truth(truth: Truth, out_dir: Path) -> Path:
    """Write the truth beside the files; the JSON last, so that it marks a night that is whole."""
    arrays = out_dir / GAINS_NAME
    with _replacing(arrays) as partial, partial.open("wb") as stream:
        np.savez(stream, station=truth.station, bandpass=truth.bandpass, drift=truth.drift, rfi=truth.rfi)
    body = {
        "format": FORMAT,
        "telescope": telescope.TELESCOPE_NAME,
        "options": truth.options,
        "pointing_dec_rad": truth.pointing_dec_rad,
        "visibility_noise_jy": truth.visibility_noise_jy,
        "flux_frequency_hz": telescope.REFERENCE_FREQUENCY_HZ,
        "sources": truth.sources.to_dict(orient="records"),
        "groups": [_plain(group) for group in truth.groups],
    }
    path = out_dir / TRUTH_NAME
    with _replacing(path) as partial:
        partial.write_text(json.dumps(body, indent=1) + "\n")
    return path


class _replacing:  # noqa: N801  (a context manager that reads as a verb)
    """A file written beside its place, fsynced, and renamed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.partial = path.with_name(path.name + ".partial")

    def __enter__(self) -> Path:
        return self.partial

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.partial.unlink(missing_ok=True)
            return
        with self.partial.open("rb+") as stream:
            os.fsync(stream.fileno())
        self.partial.replace(self.path)


def _plain(group: GroupTruth) -> dict[str, Any]:
    body = dict(vars(group))
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in body.items()}


def load_truth(directory: Path) -> Truth:
    """The truth of the night in a directory.

    Raises
    ------
    InputError
        There is none.
    CorruptFileError
        It cannot be read.
    """
    path = Path(directory) / TRUTH_NAME
    if not path.is_file():
        raise InputError("The directory holds no simulated night", path=path, expected=f"{TRUTH_NAME} beside the files")
    try:
        body = json.loads(path.read_text())
        with np.load(path.with_name(GAINS_NAME)) as arrays:
            held = {name: arrays[name] for name in ("station", "bandpass", "drift", "rfi")}
        groups = tuple(_revive(group) for group in body["groups"])
        return Truth(
            options=body["options"],
            sources=pd.DataFrame(body["sources"]),
            groups=groups,
            pointing_dec_rad=body["pointing_dec_rad"],
            visibility_noise_jy=body["visibility_noise_jy"],
            **held,
        )
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise CorruptFileError("The truth of a simulated night cannot be read", path=path, found=error) from error


def _revive(body: dict[str, Any]) -> GroupTruth:
    return GroupTruth(
        group_id=body["group_id"],
        mjd=np.array(body["mjd"]),
        pointing_ra_deg=np.array(body["pointing_ra_deg"]),
        pointing_dec_deg=np.array(body["pointing_dec_deg"]),
        files=tuple(body["files"]),
        sources=tuple(body["sources"]),
        dead_antennas=tuple(body["dead_antennas"]),
        missing_subbands=tuple(body["missing_subbands"]),
        truncated_subbands=tuple(body["truncated_subbands"]),
        rfi_fraction=body["rfi_fraction"],
    )
