"""What a calibration is worth: a few figures of its tables and of the corrected data, held against bounds.

A figure answers one question, so that a fault moves the figure it should: a deaf receptor the outliers, a bad reference
antenna the common steps, decorrelation the coherence, a model that lacks sources the closures.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg.bounds import Bound, CalibrationBounds
from dsa110_contimg.science import selfcheck
from dsa110_contimg.science.applying import Comparison
from dsa110_contimg.science.selfcheck import MAD_TO_SIGMA

LEVELS = ("good", "unknown", "suspect", "bad")
"""From best to worst; the worst of the figures is the verdict."""

SNR_FIGURE = {"B": "snr_bandpass", "BA": "snr_bandpass", "BP": "snr_bandpass", "G": "snr_gain", "GA": "snr_gain"}
SNR_FIGURE |= {"GP": "snr_phase", "2G": "snr_phase", "FLUX": "snr_gain"}
"""Which bound on SNR is for which kind of table; CASA gives delays none."""

_OUTLYING = math.log(2.0)
_WEAK = 1.0 / 3.0
_MAX_TRIANGLE_NOISE = 0.5
"""Closures noisier than this (rad) wrap, and say nothing."""
_N_QUADS = 20_000


@dataclass(frozen=True)
class Figure:
    """One figure, its level, and the bound it was held against.

    Attributes
    ----------
    table : kind of the table that it is of; ``data`` for the corrected data.
    """

    table: str
    name: str
    value: float
    level: str
    bound: Bound

    @property
    def text(self) -> str:
        """The value, for readers."""
        if not math.isfinite(self.value):
            return "not known"
        return f"{self.value * self.bound.scale:.3g} {self.bound.unit}".rstrip()


@dataclass(frozen=True)
class Verdict:
    """What a calibration is worth, and why.

    Attributes
    ----------
    level : one of `LEVELS`, the worst of the figures'.
    figures : all that could be asked.
    bounds_date : of the bounds, ISO.
    """

    level: str
    figures: tuple[Figure, ...]
    bounds_date: str

    @property
    def reasons(self) -> tuple[str, ...]:
        """One phrase for each figure that is not good, the worst first."""
        wrong = sorted((f for f in self.figures if f.level != "good"), key=lambda f: -LEVELS.index(f.level))
        return tuple(f"{f.table} {f.bound.label.lower()} {f.text} (good: {f.bound.good_text()})" for f in wrong)

    def failed(self, on: str = "bad") -> bool:
        """Whether it is as bad as ``on``, or worse."""
        return LEVELS.index(self.level) >= LEVELS.index(on)

    def __str__(self) -> str:
        return f"{self.level}: {'; '.join(self.reasons) or 'all figures within bounds'}"


def judge_calibration(
    tables: Mapping[str, xr.Dataset],
    bounds: CalibrationBounds,
    *,
    previous: Mapping[str, xr.Dataset] | None = None,
    interpolated: Mapping[str, float] | None = None,
    comparison: Comparison | None = None,
    exists: xr.DataArray | None = None,
) -> Verdict:
    """Hold a calibration against bounds.

    Parameters
    ----------
    tables : CalTable views by kind (B, G, GP, ...)
    bounds : CalibrationBounds
    previous : tables of the calibration before, by kind
        Without one of a kind, its stability is not asked.
    interpolated : mapping, optional
        Figures of amplitudes interpolated between calibrators (GA): ``gap_hours`` to the nearest solution,
        ``flux_scale_error``, ``flagged_fraction``. Its SNR is the drift's, and is not asked.
    comparison : Comparison, optional
        The corrected data against the model; without it only the tables are judged.
    exists : (antenna_name, polarization) bool, optional
        Receptors that have data. By default those that any of the tables has a solution for.

    Returns
    -------
    Verdict
        A figure that was asked and cannot be had is unknown, and an unknown calibration is not good.
    """
    figures = []
    if exists is None and tables:
        exists = existing_receptors(list(tables.values()))
    for kind, table in tables.items():
        values = table_figures(table, kind, exists)
        if previous and kind in previous:
            values |= stability(table, previous[kind])
        figures += [_judged(kind, name, value, bounds) for name, value in values.items()]
    figures += [_judged("GA", name, value, bounds) for name, value in (interpolated or {}).items()]
    if comparison is not None:
        figures += [_judged("data", name, value, bounds) for name, value in data_figures(comparison).items()]
    level = max((figure.level for figure in figures), key=LEVELS.index, default="unknown")
    return Verdict(level, tuple(figures), bounds.date.isoformat())


def _judged(table: str, name: str, value: float, bounds: CalibrationBounds) -> Figure:
    bound = bounds.calibration[name]
    return Figure(table, name, value, bound.level(value), bound)


# ---- tables -------------------------------------------------------------------------------------------------------


def existing_receptors(tables: list[xr.Dataset]) -> xr.DataArray:
    """(antenna_name, polarization): receptors that some table has a solution for; others have no data."""
    solved = [(~table["FLAG"]).any(dim=("time", "frequency")) for table in tables]
    joined = xr.concat(xr.align(*solved, join="outer", fill_value=False), dim="table")
    return joined.any(dim="table")


def table_figures(table: xr.Dataset, kind: str, exists: xr.DataArray | None = None) -> dict[str, float]:
    """Figures of one table; NaN where there is nothing to tell from.

    Parameters
    ----------
    table : CalTable view
    kind : B, G, GP, ...
    exists : (antenna_name, polarization), optional

    Returns
    -------
    dict
        ``flagged_fraction``, of receptors that exist in channels and at times that any receptor solved;
        ``snr_...``, the median; ``outlying_receptors``; of tables with several times ``phase_scatter_deg`` (of an
        antenna's step from one solution to the next, over sqrt 2) and ``reference_jump_ratio`` (rms of the
        steps that all antennas share over that of their own); ``reference_phase_deg``, the largest.
    """
    order = ("time", "antenna_name", "frequency", "polarization")
    good = ~table["FLAG"].transpose(*order).to_numpy()
    gain = np.where(good, table["GAIN"].transpose(*order).to_numpy(), np.nan)
    snr = np.where(good, table["SNR"].transpose(*order).to_numpy(), np.nan)
    there: NDArray[np.bool_] = np.asarray(good.any(axis=(0, 2)))
    if exists is not None:
        known = exists.reindex(antenna_name=table["antenna_name"], fill_value=False)
        there = known.transpose("antenna_name", "polarization").to_numpy().astype(np.bool_)
    counted = good[:, :, good.any(axis=(0, 1, 3))].transpose(1, 3, 0, 2)[there]
    found = {"flagged_fraction": float(1.0 - counted.mean()) if counted.size else 1.0}
    if kind in SNR_FIGURE:
        found[SNR_FIGURE[kind]] = _median(snr)
        found["outlying_receptors"] = _outlying(gain, snr, there)
    if gain.shape[0] > 1:
        own, common = _steps(gain)
        found["phase_scatter_deg"] = float(np.degrees(own / math.sqrt(2.0)))
        found["reference_jump_ratio"] = common / own if own > 0 else math.nan
    names = [str(name) for name in table["antenna_name"].to_numpy()]
    if table.attrs.get("refant", "") in names:
        reference = np.angle(gain[:, names.index(table.attrs["refant"])])
        found["reference_phase_deg"] = float(np.degrees(np.nanmax(np.abs(reference), initial=0.0)))
    return found


def _outlying(gain: NDArray[np.complex128], snr: NDArray[np.float64], there: NDArray[np.bool_]) -> float:
    """Fraction of the receptors there are whose amplitude or SNR is unlike the others', or that have no solution."""
    amplitude, strength = (_median_of_receptors(cube) for cube in (np.abs(gain), snr))
    with np.errstate(divide="ignore", invalid="ignore"):
        off = np.abs(np.log(amplitude / _median(amplitude[there]))) > _OUTLYING
        weak = strength < _WEAK * _median(strength[there])
    wrong = off | weak | ~np.isfinite(amplitude)
    return float(wrong[there].mean()) if there.any() else math.nan


def _steps(gain: NDArray[np.complex128]) -> tuple[float, float]:
    """Phase steps in time (rad): the usual rms of an antenna's own, and the rms of what all antennas share."""
    turned = gain[1:] * gain[:-1].conj()
    turned = np.where(turned == 0, np.nan, turned).transpose(0, 2, 1, 3).reshape(-1, gain.shape[1] * gain.shape[3])
    step = np.angle(turned[:, np.isfinite(turned).any(axis=0)])
    # the reference antenna does not move by definition; its own phase stands in all the others'
    step = step[:, (np.nan_to_num(step) != 0.0).any(axis=0)]
    step = step[np.isfinite(step).any(axis=1)]
    if step.size == 0:
        return math.nan, math.nan
    shared = np.nanmedian(step, axis=1, keepdims=True)
    own = MAD_TO_SIGMA * _median(np.abs(step - shared))
    return own, float(np.sqrt(np.mean(shared**2)))


def stability(table: xr.Dataset, previous: xr.Dataset) -> dict[str, float]:
    """Amplitudes against those of an earlier table: how far their mean moved, and how they scatter about it.

    Phases are not compared: they are not expected to stay.
    """
    now, then = (_amplitudes(one) for one in (table, previous))
    now, then = xr.align(now, then, join="inner")
    with np.errstate(divide="ignore", invalid="ignore"):
        change = np.log(now.to_numpy() / then.to_numpy())
    change = change[np.isfinite(change)]
    if change.size < 3:
        return {"amplitude_level_change": math.nan, "amplitude_change": math.nan}
    level = float(np.median(change))
    scatter = MAD_TO_SIGMA * float(np.median(np.abs(change - level)))
    return {"amplitude_level_change": abs(level), "amplitude_change": scatter}


def _amplitudes(table: xr.Dataset) -> xr.DataArray:
    """(antenna_name, polarization) median amplitude."""
    order = ("time", "antenna_name", "frequency", "polarization")
    gain = np.abs(table["GAIN"].where(~table["FLAG"]).transpose(*order).to_numpy())
    coords = {"antenna_name": table["antenna_name"].astype(str), "polarization": table["polarization"].astype(str)}
    return xr.DataArray(_median_of_receptors(gain), dims=("antenna_name", "polarization"), coords=coords)


def _median_of_receptors(cube: NDArray[np.float64]) -> NDArray[np.float64]:
    """(antenna, polarization) of (time, antenna, frequency, polarization); NaN without a value."""
    lines = cube.transpose(1, 3, 0, 2).reshape(cube.shape[1], cube.shape[3], -1)
    out = np.full(lines.shape[:2], np.nan)
    some = np.isfinite(lines).any(axis=-1)
    out[some] = np.nanmedian(lines[some], axis=-1)
    return out


def _median(values: NDArray[np.float64]) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else math.nan


# ---- corrected data -----------------------------------------------------------------------------------------------


def data_figures(comparison: Comparison) -> dict[str, float]:
    """Figures of the corrected data against the model; NaN where there is nothing to tell from.

    Returns
    -------
    dict
        ``residual_over_thermal``, rms of data less model over the thermal noise; ``coherence``; ``antenna_scatter``
        (`selfcheck.amplitude_scatter`); ``closure_phase_over_noise`` and ``closure_amplitude_over_noise``.
    """
    cross = comparison.cross
    totals = cross.sums.sum(axis=(0, 1, 2))
    count = float(totals[4])
    residual = math.sqrt(float(totals[3]) / (2.0 * count)) / cross.noise_jy if count else math.nan
    phase, amplitude = closures(comparison)
    scatter, _ = selfcheck.amplitude_scatter(comparison.per_antenna(), cross.noise_jy)
    return {
        "residual_over_thermal": residual,
        "coherence": coherence(comparison),
        "antenna_scatter": scatter,
        "closure_phase_over_noise": phase,
        "closure_amplitude_over_noise": amplitude,
    }


def coherence(comparison: Comparison) -> float:
    """What averaging over time leaves of the amplitude: 1 if phases stand still, whatever the noise.

    With c_t = sum over channels of V conj(M) of a baseline, which would be P_t = sum |M|^2 but for noise of variance
    2 sigma^2 P_t, its square is sum_(t != u) c_t conj(c_u) over sum_(t != u) P_t P_u, divided by sum |c_t|^2 less the
    noise over sum P_t^2; each is summed over baselines. The P_t are not equal: sources drift through the beam.
    """
    cross = comparison.cross
    value = cross.sums[..., 0] + 1j * cross.sums[..., 1]
    power = cross.sums[..., 2]
    squares, powers = float((np.abs(value) ** 2).sum()), float((power**2).sum())
    between = float((np.abs(value.sum(axis=0)) ** 2).sum()) - squares
    between_powers = float((power.sum(axis=0) ** 2).sum()) - powers
    alone = squares - 2.0 * cross.noise_jy**2 * float(power.sum())
    if not (alone > 0 and between_powers > 0 and between > 0):
        return math.nan
    return math.sqrt(between / between_powers / (alone / powers))


def closures(comparison: Comparison) -> tuple[float, float]:
    """Closure phases and log closure amplitudes of data over model, rms in units of their thermal noise.

    Of three antennas arg(R_12 R_23 R_31), of four log |R_12 R_34 / (R_13 R_24)|, with R = sum V conj(M) / sum |M|^2
    over channels and times (Thompson, Moran & Swenson 2017, section 10.3): gains of antennas fall out. NaN if none
    has noise small enough to tell. At most `_N_QUADS` sets of antennas, chosen once for all, are looked at.
    """
    cross = comparison.cross
    total = cross.sums.sum(axis=0)
    n = len(cross.antennas)
    value, noise = np.zeros((n, n, total.shape[1]), complex), np.full((n, n, total.shape[1]), np.inf)
    power = total[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        r = np.where(power > 0, (total[..., 0] + 1j * total[..., 1]) / power, 0.0)
        relative = np.where(power > 0, cross.noise_jy / np.sqrt(power) / np.abs(r), np.inf)
    value[cross.antenna1, cross.antenna2], value[cross.antenna2, cross.antenna1] = r, r.conj()
    noise[cross.antenna1, cross.antenna2] = noise[cross.antenna2, cross.antenna1] = relative
    if n < 4:
        return math.nan, math.nan
    sets = np.argsort(np.random.default_rng(0).random((_N_QUADS, n)), axis=1)[:, :4].T
    one, two, three, four = sets
    around = [(one, two), (two, three), (three, one)]
    phase = np.angle(np.prod([value[pair] for pair in around], axis=0))
    ring = [(one, two), (three, four), (one, three), (two, four)]
    with np.errstate(divide="ignore", invalid="ignore"):
        a, b, c, d = (np.log(np.abs(value[pair])) for pair in ring)
        amplitude = a + b - c - d
    return _over_noise(phase, [noise[pair] for pair in around]), _over_noise(amplitude, [noise[pair] for pair in ring])


def _over_noise(values: NDArray[np.float64], noises: list[NDArray[np.float64]]) -> float:
    sigma = np.sqrt(np.sum(np.square(noises), axis=0))
    told = sigma < _MAX_TRIANGLE_NOISE
    return float(np.sqrt(np.mean((values[told] / sigma[told]) ** 2))) if told.any() else math.nan
