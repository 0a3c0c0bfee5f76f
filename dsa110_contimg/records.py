"""Records: small frozen descriptions of things on disk. They travel between stages, processes and hosts.

A record knows where a product is and what it is, never how to open it; `dsa110_contimg.open` turns it into a view.
Records survive JSON (`to_json`, `from_json`) without loss, which is how checkpoints keep them.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from dsa110_contimg import telescope


class _Json:
    """Reversible JSON for frozen dataclasses whose fields are numbers, text, paths, records and tuples of these."""

    def to_dict(self) -> dict[str, Any]:
        body = {f.name: _plain(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return {"record": type(self).__name__, **body}

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        record = from_dict(json.loads(text))
        if not isinstance(record, cls):
            raise TypeError(f"{type(record).__name__} where {cls.__name__} was expected")
        return record


def _plain(value: Any) -> Any:
    if isinstance(value, _Json):
        return value.to_dict()
    if isinstance(value, Path):
        return {"path": str(value)}
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


def _revive(value: Any) -> Any:
    if isinstance(value, dict):
        return Path(value["path"]) if set(value) == {"path"} else from_dict(value)
    if isinstance(value, list):
        return tuple(_revive(item) for item in value)
    return value


def from_dict(body: dict[str, Any]) -> Any:
    """The record that ``to_dict`` described."""
    kinds = {kind.__name__: kind for kind in _Json.__subclasses__()}
    kind = kinds[body["record"]]
    return kind(**{name: _revive(value) for name, value in body.items() if name != "record"})


def group_id(mjd_first: float) -> str:
    """Identity of a group: UTC start of its first integration, to the second (``2026-01-25T22:26:05``).

    Parameters
    ----------
    mjd_first : float
        Centre of the first integration (MJD UTC), from ``time_array``: file names differ between subbands.
    """
    from astropy.time import Time

    start = Time(mjd_first, format="mjd", scale="utc").to_datetime() - timedelta(seconds=telescope.INTEGRATION_S / 2)
    text: str = (start + timedelta(seconds=0.5)).strftime("%Y-%m-%dT%H:%M:%S")
    return text


@dataclass(frozen=True)
class SubbandFile(_Json):
    """One UVH5 file.

    Attributes
    ----------
    mjd_first : centre of the first integration (MJD UTC), read from the file.
    """

    path: Path
    subband: int
    mjd_first: float
    size_bytes: int


@dataclass(frozen=True)
class IndexedFile(_Json):
    """What the header of a subband file said, or why the file cannot be used, as long as it stays as it is on disk.

    Attributes
    ----------
    size_bytes, mtime_ns : of the file when it was read; with other values it must be read again.
    reader : version of the code that read it.
    subband : None if the file cannot be used; times, declination and counts then mean nothing.
    mjd_first : centre of the first integration (MJD UTC).
    layout : integrations, polarisations, baselines and declination, in words; the files of a group have the same.
    problem : kind, sentence, found and expected of the error; empty if the file can be used.
    """

    path: Path
    size_bytes: int
    mtime_ns: int
    reader: str
    subband: int | None = None
    mjd_first: float = float("nan")
    pointing_dec_deg: float = float("nan")
    n_integrations: int = 0
    integration_s: float = float("nan")
    layout: str = ""
    problem: tuple[str, ...] = ()


@dataclass(frozen=True)
class SubbandGroup(_Json):
    """The files of one observation (309 s unless it was recorded otherwise), ordered by subband."""

    group_id: str
    mjd_first: float
    pointing_dec_deg: float
    files: tuple[SubbandFile, ...]
    n_integrations: int = telescope.N_INTEGRATIONS

    @property
    def missing(self) -> tuple[int, ...]:
        """Subbands that have no file."""
        have = {f.subband for f in self.files}
        return tuple(sb for sb in range(telescope.N_SUBBANDS) if sb not in have)

    @property
    def mjd_mid(self) -> float:
        """Middle of the observation (MJD UTC)."""
        return self.mjd_first + (self.n_integrations - 1) / 2 * telescope.INTEGRATION_S / 86400


@dataclass(frozen=True)
class MeasurementSet(_Json):
    """A CASA Measurement Set with one FIELD, the meridian at mid-group.

    Attributes
    ----------
    ra_deg, dec_deg : phase centre (ICRS).
    mjd_start, mjd_end : begin of the first and end of the last integration (MJD UTC).
    missing_subbands : written as flagged data.
    """

    path: Path
    group_id: str
    ra_deg: float
    dec_deg: float
    mjd_start: float
    mjd_end: float
    n_antennas: int
    missing_subbands: tuple[int, ...] = ()

    @property
    def mjd_mid(self) -> float:
        return (self.mjd_start + self.mjd_end) / 2


@dataclass(frozen=True)
class Validation(_Json):
    """What was looked at in a product after writing.

    Attributes
    ----------
    checks : (name, "ok" or "failed", what was found, what was expected) of each.
    """

    path: Path
    checks: tuple[tuple[str, str, str, str], ...]

    @property
    def ok(self) -> bool:
        return bool(self.checks) and not self.failed

    @property
    def failed(self) -> tuple[tuple[str, str, str, str], ...]:
        return tuple(check for check in self.checks if check[1] != "ok")


@dataclass(frozen=True)
class FlagSummary(_Json):
    """What flagging did, as fractions of the cross-correlations, by cause (in the order they were applied)."""

    measurement_set: MeasurementSet
    causes: tuple[tuple[str, float], ...]
    flagged_fraction: float
    dead_antennas: tuple[str, ...]


@dataclass(frozen=True)
class CalTable(_Json):
    """A CASA calibration table and the time it is valid for.

    Attributes
    ----------
    kind : ``K`` delay, ``B`` bandpass, ``G`` complex gain; ``BA`` ``BP`` and ``GA`` ``GP`` their amplitudes and phases,
        ``GP`` also phases solved in the target field; ``2G`` gains in short intervals; ``FLUX`` one for all antennas.
    set_name : tables solved together share it.
    valid_from, valid_to : half-open window (MJD UTC).
    mjd : the middle of the data it was solved on.
    flagged_fraction, median_snr : over antennas and channels that have a solution at all.
    calibrator : its name; empty for phases solved in the field.
    """

    path: Path
    kind: str
    set_name: str
    apply_order: int
    group_id: str
    refant: str
    mjd: float
    valid_from: float
    valid_to: float
    flagged_fraction: float
    median_snr: float
    calibrator: str = ""


@dataclass(frozen=True)
class CalTableSet(_Json):
    """The tables to apply to one observation, in order, with the error they leave in a flux.

    Attributes
    ----------
    flux_scale_error : 1-sigma relative error of a flux, from the solutions' own noise and drift.
    quality : bits of gains that are interpolated between calibrators (`science.interpolation`); 0 for gains in their
        validity.
    field_model : what the phases were solved against: which catalogue, how deep (`io.fieldmodel`).
    """

    tables: tuple[CalTable, ...]
    flux_scale_error: float
    solved: tuple[CalTable, ...] = field(default=())
    quality: int = 0
    field_model: str = ""


@dataclass(frozen=True)
class ImageProduct(_Json):
    """A restored image and its companions, all FITS, one plane each.

    Attributes
    ----------
    path : restored image (Jy/beam), not beam corrected.
    pbcor_path, pb_path, residual_path, model_path, psf_path, smearing_path : companions on the same grid;
        ``pb`` is the drift-averaged primary beam, ``smearing`` the fraction of a peak that survives averaging.
    bmaj_deg, bmin_deg, bpa_deg : restoring beam; position angle north through east.
    noise_jy : robust rms of the residual image (Jy/beam).
    thermal_noise_jy : radiometer equation for the weights used (Jy/beam).
    frequency_hz : effective frequency, the weighted mean.
    tier : of the imaging options; ``development`` is not for science.
    imager : native, wsclean or tclean.
    dynamic_range : peak of the restored image over ``noise_jy``.
    """

    path: Path
    pbcor_path: Path
    pb_path: Path
    residual_path: Path
    model_path: Path
    psf_path: Path
    smearing_path: Path
    group_id: str
    ra_deg: float
    dec_deg: float
    mjd_start: float
    mjd_end: float
    n_pixels: int
    cell_arcsec: float
    bmaj_deg: float
    bmin_deg: float
    bpa_deg: float
    noise_jy: float
    thermal_noise_jy: float
    frequency_hz: float
    flux_scale_error: float
    tier: str = "standard"
    imager: str = "native"
    dynamic_range: float = float("nan")

    @property
    def mjd_mid(self) -> float:
        return (self.mjd_start + self.mjd_end) / 2


@dataclass(frozen=True)
class CubeProduct(_Json):
    """A FITS cube over frequency or time, and the primary beam of its planes.

    Attributes
    ----------
    path, pb_path : restored planes (Jy/beam), not beam corrected; drift-averaged primary beam of each.
    kind : ``subbands`` or ``integrations``.
    frequency_hz, mjd : of each plane, the weighted mean and the middle (UTC).
    noise_jy, thermal_noise_jy : of each plane (Jy/beam); NaN where it has no data.
    """

    path: Path
    pb_path: Path
    group_id: str
    kind: str
    frequency_hz: tuple[float, ...]
    mjd: tuple[float, ...]
    noise_jy: tuple[float, ...]
    thermal_noise_jy: tuple[float, ...]


@dataclass(frozen=True)
class Photometry(_Json):
    """A table (ECSV) of forced fluxes on one image, with the summary a report opens with.

    Attributes
    ----------
    median_ratio : median measured / catalogue flux of sources above 20 sigma inside the half-power radius, or NaN.
    flux_scale_error : what all fluxes share of their relative errors, or NaN.
    """

    path: Path
    group_id: str
    image_path: Path
    n_sources: int
    n_bright: int
    median_ratio: float
    ratio_scatter: float
    flux_scale_error: float = float("nan")
