"""Amplitude gains between calibrators: interpolated in log amplitude, with an error measured from the gains themselves.

How far gains wander in a time tau is their structure function, D(tau) = <[ln a(t + tau) - ln a(t)]^2>, modelled as

    D(tau) = 2 s^2 [1 - exp(-(tau / T)^p)],     p = 1 or 2

For T much longer than the data this is a random walk (p = 1, D = q tau) or a linear drift (p = 2, D = r^2 tau^2); for T
shorter, gains that settle about a mean. Which of them, the solutions of the day decide by their likelihood. Between
solutions at t0 and t1 a gain is interpolated linearly with weights w and 1 - w, which for any such process errs by

    var = w^2 n0^2 + (1 - w)^2 n1^2 + k [w D(t - t0) + (1 - w) D(t1 - t) - w (1 - w) D(t1 - t0)]

with n the errors of the solutions (1 / SNR) and k how restless the antenna is among the others. Of the laws that the
data allow (within two units of log likelihood), the one with the largest error is quoted: two solutions alone say how
far gains moved, but not whether they moved once or to and fro. Phases are not interpolated: each group solves its own.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg import schema, telescope
from dsa110_contimg.exceptions import CalibrationError

EXTRAPOLATED, BEYOND_VALIDITY, DRIFT_ASSUMED = 1, 2, 4
"""Bits of QUALITY: solutions on one side only; the nearest one is out of its validity; too few to tell the drift."""

ASSUMED_RMS = 0.02
"""Long-time rms of the log amplitude of an antenna of which nothing is known, and of what all antennas share. A guess,
hence the bit of QUALITY."""
TOLD_FROM = 0.05
"""Bits that a smaller share of the receptors has do not count for a flux, to which all contribute."""
_PLAUSIBLE = 2.0
_PRIOR_WEIGHT = 10.0
"""An antenna's own restlessness counts against that of the array as its number of increments against this."""
_EXPONENTS = (1, 2)
_TIMES = 20
_SHORTEST_DAYS = telescope.GROUP_S / 86400
"""A solution is a mean over a group: what gains do within one, it cannot tell."""
_SIGNIFICANT = 0.9987
_OUTLIER = 0.9999

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Drift:
    """A law of drift: D(tau) = 2 variance [1 - exp(-(tau / days)^exponent)].

    Attributes
    ----------
    exponent : 1 (rough) or 2 (smooth).
    days : time after which gains have forgotten what they were.
    variance : of the log amplitude over a long time.
    log_likelihood : of the solutions it was learnt from.
    """

    exponent: int
    days: float
    variance: float
    log_likelihood: float

    def structure(self, days: Any) -> Any:
        """D of time differences (days)."""
        return 2 * self.variance * -np.expm1(-((np.abs(days) / self.days) ** self.exponent))

    def in_words(self, span_days: float) -> str:
        """What kind of process it is over some days, and how far it goes in an hour."""
        kind = {1: "random walk", 2: "linear drift"}[self.exponent]
        if self.days < 3 * span_days:
            kind = f"{'rough' if self.exponent == 1 else 'smooth'} about a mean, forgotten in {24 * self.days:.2g} h"
        return f"{kind}, {np.sqrt(self.structure(1 / 24)):.2%} in an hour"


@dataclass(frozen=True)
class DriftModel:
    """What is known of the drift of an array's amplitudes.

    Attributes
    ----------
    laws : those that the solutions allow, the likeliest first.
    restlessness : (antenna, polarization) k, the ratio of an antenna's own D to the array's.
    common : laws of a drift that all antennas share; empty if none stands out of their independent ones.
    n_solutions : from how many solutions it was learnt.
    assumed : of two solutions, whose one step tells little of a common drift: how far that may go all the same. It
        counts for the flux scale, which it moves as a whole, and is not in the errors of the gains.
    """

    laws: tuple[Drift, ...]
    restlessness: Floats
    common: tuple[Drift, ...]
    n_solutions: int
    assumed: tuple[Drift, ...] = ()


# ---- levels -------------------------------------------------------------------------------------------------------


def amplitude_levels(
    gains: Sequence[xr.Dataset], bandpasses: Sequence[xr.Dataset] = (), reference: xr.Dataset | None = None
) -> xr.Dataset:
    """Log amplitudes of solutions on different calibrators, made comparable.

    A gain is relative to the bandpass it was solved on. With each solution's own bandpass B and the one that will be
    applied, B_ref, the level of an antenna is ln|G| + <ln|B| - ln|B_ref|>, the mean over channels that both have.

    Parameters
    ----------
    gains : sequence of CalTable views
        Complex gains, one Dataset a solution; several times in one are averaged by SNR.
    bandpasses : sequence of CalTable views, optional
        The bandpass of each; none where all were solved on ``reference``.
    reference : CalTable view, optional
        The bandpass that will be applied.

    Returns
    -------
    Dataset
        ``LEVEL`` (ln) and ``ERROR`` (1 / SNR) of (time, antenna_name, polarization), ascending in time (MJD); NaN
        where there is no solution.

    Raises
    ------
    CalibrationError
        No gains, bandpasses that do not match them in number or channels, or two solutions at one time.
    """
    if not gains or (bandpasses and len(bandpasses) != len(gains)) or (bool(bandpasses) != (reference is not None)):
        raise CalibrationError(
            "Gains cannot be interpolated",
            found=f"{len(gains)} gains, {len(bandpasses)} bandpasses, reference: {reference is not None}",
            expected="at least one gain; and for each its bandpass and one to refer them to, or neither",
        )
    made = []
    for number, gain in enumerate(gains):
        level = _one_level(schema.check(gain, schema.CALTABLE))
        if reference is not None:
            level["LEVEL"] = level["LEVEL"] + _bandpass_ratio(bandpasses[number], reference)
        made.append(level)
    levels: xr.Dataset = xr.concat(made, "time", join="outer").sortby("time")
    if np.unique(levels["time"]).size < levels.sizes["time"]:
        raise CalibrationError("Two solutions at one time", found=levels["time"].to_numpy().tolist())
    levels.attrs["frequency"] = float(gains[0]["frequency"].mean())
    return levels.transpose("time", "antenna_name", "polarization")


def _one_level(gain: xr.Dataset) -> xr.Dataset:
    good = ~gain["FLAG"] & (np.abs(gain["GAIN"]) > 0) & (gain["SNR"] > 0)
    weight = (gain["SNR"].astype(float) ** 2).where(good, 0.0)
    total = weight.sum(("time", "frequency"))
    logarithm = _log_amplitude(gain).where(good, 0.0)
    level = ((logarithm * weight).sum(("time", "frequency")) / total.where(total > 0)).expand_dims(
        time=[float(gain["time"].mean())]
    )
    return xr.Dataset({"LEVEL": level, "ERROR": (total.where(total > 0) ** -0.5).expand_dims(time=level["time"])})


def _bandpass_ratio(bandpass: xr.Dataset, reference: xr.Dataset) -> xr.DataArray:
    """<ln|B| - ln|B_ref|> of each antenna and polarisation over common channels; NaN without any."""
    if not np.array_equal(bandpass["frequency"], reference["frequency"]):
        raise CalibrationError(
            "Bandpasses of different channels cannot be compared",
            found=f"{bandpass.sizes['frequency']} and {reference.sizes['frequency']} channels",
        )
    sides = [_log_bandpass(table) for table in (bandpass, reference)]
    ratio: xr.DataArray = (sides[0] - sides[1]).mean("frequency", skipna=True)
    return ratio


def _log_bandpass(table: xr.Dataset) -> xr.DataArray:
    return _log_amplitude(table).mean("time", skipna=True)


def _log_amplitude(table: xr.Dataset) -> xr.DataArray:
    """ln|G|, NaN where there is no solution."""
    size = np.abs(table["GAIN"].to_numpy()).astype(float)
    known = ~table["FLAG"].to_numpy() & (size > 0)
    return table["GAIN"].copy(data=np.where(known, np.log(np.where(known, size, 1.0)), np.nan))


# ---- drift --------------------------------------------------------------------------------------------------------


def structure_function(levels: xr.Dataset) -> xr.Dataset:
    """D of every pair of solutions, noise taken off, averaged over antennas: what the laws are held against.

    Returns
    -------
    Dataset
        ``D`` and its ``ERROR`` (as if antennas were independent) by ``lag`` (days).
    """
    level, noise = levels["LEVEL"].to_numpy(), levels["ERROR"].to_numpy()
    time = levels["time"].to_numpy()
    rows = []
    for first in range(time.size):
        for second in range(first + 1, time.size):
            square = (level[second] - level[first]) ** 2 - noise[second] ** 2 - noise[first] ** 2
            known = square[np.isfinite(square)]
            if known.size > 1:
                rows.append((time[second] - time[first], known.mean(), known.std() / np.sqrt(known.size)))
    lag, mean, error = np.array(sorted(rows)).reshape(-1, 3).T
    return xr.Dataset({"D": ("lag", mean), "ERROR": ("lag", error)}, {"lag": ("lag", lag, {"units": "d"})})


def fit_drift(levels: xr.Dataset) -> DriftModel:
    """How amplitudes drift, learnt from the solutions of a day (`amplitude_levels`).

    By restricted maximum likelihood of the increments, over antennas with a solution at every time. Antennas whose
    increments no array would have (1 in 10,000) do not count. What all antennas share is told apart when the mean over
    antennas moves more than independent antennas make it (3 sigma). Of two solutions, the mean has moved once: by
    chance that may be little, so the variance of a common drift is then the mean of what it moved and of what is
    assumed (`ASSUMED_RMS` counts as one more step).
    """
    time = levels["time"].to_numpy().astype(float)
    shape = levels["LEVEL"].shape[1:]
    level, noise = (levels[name].to_numpy().reshape(time.size, -1) for name in ("LEVEL", "ERROR"))
    whole = np.isfinite(level).all(axis=0)
    if time.size < 2 or whole.sum() < 2:
        unknown = (Drift(1, 1e-6, ASSUMED_RMS**2, 0.0),)
        return DriftModel(unknown, np.ones(shape), unknown, min(time.size, 1))
    noise2 = np.median(noise[:, whole] ** 2, axis=1)
    common, assumed = _common_laws(time, level[:, whole], noise2)
    own = level[:, whole] - (level[:, whole].mean(axis=1, keepdims=True) if common else 0.0)
    laws, quadratic = _fit(time, own, noise2)
    steps = time.size - 1
    usual = quadratic <= _chi_square(_OUTLIER, steps)
    if not usual.all() and usual.sum() >= 2:
        laws, _ = _fit(time, own[:, usual], noise2)
        quadratic = _quadratic(time, own, noise2, laws[0])
    restless = np.ones(level.shape[1])
    restless[whole] = (_PRIOR_WEIGHT + quadratic) / (_PRIOR_WEIGHT + steps)
    return DriftModel(laws, restless.reshape(shape), common, time.size, assumed)


def _common_laws(time: Floats, level: Floats, noise2: Floats) -> tuple[tuple[Drift, ...], tuple[Drift, ...]]:
    """Laws of the mean over antennas, if it moves more than independent antennas would make it; and the assumed one."""
    increments = np.diff(level, axis=0)
    expected = np.maximum(increments.var(axis=1, ddof=1), noise2[1:] + noise2[:-1]) / level.shape[1]
    moved = increments.mean(axis=1)
    laws: tuple[Drift, ...] = ()
    if (moved**2 / expected).sum() > _chi_square(_SIGNIFICANT, time.size - 1):
        laws = _fit(time, level.mean(axis=1, keepdims=True), noise2 / level.shape[1])[0]
    if time.size > 2:
        return laws, ()
    beyond = max(float(moved[0] ** 2 - expected[0]), 0.0)
    return laws, (Drift(1, 1e-6, (2 * ASSUMED_RMS**2 + beyond) / 4, 0.0),)


def _chi_square(probability: float, degrees: int) -> float:
    from scipy.stats import chi2

    return float(chi2.ppf(probability, degrees))


def _covariance(time: Floats, noise2: Floats, law: Drift) -> Floats:
    """Covariance of consecutive increments: -C D C^T / 2 + C N C^T, C the differences."""
    differences = np.diff(np.eye(time.size), axis=0)
    structure = np.asarray(law.structure(time[:, None] - time))
    return np.asarray(differences @ (np.diag(noise2) - structure / 2) @ differences.T)


def _log_likelihood(log_variance: float, law: Drift, time: Floats, noise2: Floats, increments: Floats) -> float:
    covariance = _covariance(time, noise2, Drift(law.exponent, law.days, float(np.exp(log_variance)), 0.0))
    covariance[np.diag_indices_from(covariance)] *= 1 + 1e-9
    factor = np.linalg.cholesky(covariance)
    white = np.linalg.solve(factor, increments)
    return float(-0.5 * (white**2).sum() - increments.shape[1] * np.log(np.diag(factor)).sum())


def _fit(time: Floats, level: Floats, noise2: Floats) -> tuple[tuple[Drift, ...], Floats]:
    """Laws within `_PLAUSIBLE` of the likeliest, likeliest first, and each series' chi-square under that one."""
    from scipy.optimize import minimize_scalar

    increments = np.diff(level, axis=0)
    span = time[-1] - time[0]
    # an increment of zero has no logarithm: a thousandth of the noise stands for no drift at all
    least = max(1e-6 * float(noise2.mean()), 1e-14)
    found = []
    for exponent in _EXPONENTS:
        for days in np.geomspace(min(_SHORTEST_DAYS, span), 30 * span, _TIMES):
            unit = Drift(exponent, float(days), 1.0, 0.0)
            moved = max(float((increments**2).mean()) / float(unit.structure(np.diff(time)).mean()), least)
            minus = functools.partial(_minus_likelihood, law=unit, time=time, noise2=noise2, increments=increments)
            best = minimize_scalar(minus, bounds=(np.log(least), np.log(moved) + 5.0), method="bounded")
            found.append(Drift(exponent, float(days), float(np.exp(best.x)), -float(best.fun)))
    found.sort(key=lambda law: -law.log_likelihood)
    laws = tuple(law for law in found if law.log_likelihood >= found[0].log_likelihood - _PLAUSIBLE)
    return laws, _quadratic(time, level, noise2, laws[0])


def _minus_likelihood(log_variance: float, **known: Any) -> float:
    return -_log_likelihood(log_variance, **known)


def _quadratic(time: Floats, level: Floats, noise2: Floats, law: Drift) -> Floats:
    increments = np.diff(level, axis=0)
    covariance = _covariance(time, noise2, law)
    covariance[np.diag_indices_from(covariance)] *= 1 + 1e-9
    return np.asarray((increments * np.linalg.solve(covariance, increments)).sum(axis=0))


# ---- interpolation ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Bracket:
    """Per series: weight of the solution before, and times since and until (days); NaN where there is none."""

    level: Floats
    noise2: Floats
    weight: Floats
    since: Floats
    until: Floats

    def wandered(self, laws: Sequence[Drift]) -> Floats:
        """The part of the variance that drift makes: of the laws, that with the largest mean."""
        parts = [self._under(law) for law in laws]
        return max(parts, key=lambda part: float(np.nanmean(part))) if parts else np.zeros(self.level.shape)

    def _under(self, law: Drift) -> Floats:
        w, since, until = self.weight, np.nan_to_num(self.since), np.nan_to_num(self.until)
        between = np.where(np.isfinite(self.since) & np.isfinite(self.until), law.structure(since + until), 0.0)
        part = w * law.structure(since) + (1 - w) * law.structure(until) - w * (1 - w) * between
        return np.where(np.isfinite(self.level), part, np.nan)


def interpolate(levels: xr.Dataset, mjd: float, valid_days: float, drift: DriftModel | None = None) -> xr.Dataset:
    """Amplitude gains at a time between (or beyond) solutions, as a CalTable with errors.

    Parameters
    ----------
    levels : Dataset
        `amplitude_levels` of the solutions, all those of the day: the nearest ones of each antenna are interpolated,
        all teach the drift.
    mjd : float
        Middle of the observation (MJD UTC).
    valid_days : float
        Half-width of a solution's validity: farther from the nearest one, QUALITY says so.
    drift : DriftModel, optional
        Default: `fit_drift` of the levels.

    Returns
    -------
    Dataset
        A CalTable of one time and one frequency, kind ``G``: GAIN real and positive, SNR = 1 / error, FLAG where an
        antenna has no solution. Besides: ``ERROR``, relative 1-sigma of the amplitude; ``QUALITY`` bits. Attributes:
        ``flux_scale_error`` (relative, of a flux: amplitudes enter twice, averaged over antennas and polarisations),
        ``drift`` in words, ``gap_days`` to the nearest solution, ``n_solutions``, and ``solution_snr``, the median
        SNR of noise alone.

    Raises
    ------
    CalibrationError
        No antenna has a solution.
    """
    if not np.isfinite(levels["LEVEL"]).any():
        raise CalibrationError("No antenna has a solution to interpolate", found=f"{levels.sizes['time']} solutions")
    known = fit_drift(levels) if drift is None else drift
    bracket = _bracket(levels, mjd)
    alone = known.restlessness * bracket.wandered(known.laws)
    # what all antennas do is the same for all: that of the antenna with the widest gap is nobody's exception
    shared, assumed = (float(np.nanmax(bracket.wandered(laws), initial=0.0)) for laws in (known.common, known.assumed))
    own = bracket.noise2 + alone
    alive = np.isfinite(bracket.level)
    error = np.sqrt(own + shared)
    nearest = np.fmin(bracket.since, bracket.until)
    quality = np.where(np.isfinite(bracket.since) & np.isfinite(bracket.until), 0, EXTRAPOLATED)
    quality |= np.where(nearest > valid_days, BEYOND_VALIDITY, 0)
    quality |= DRIFT_ASSUMED if known.n_solutions < 3 else 0
    scale_error = 2 * np.sqrt(own[alive].sum() / alive.sum() ** 2 + max(shared, assumed))
    span = float(np.ptp(levels["time"].to_numpy())) or valid_days
    attributes = {
        "kind": "G",
        "refant": "",
        "flux_scale_error": float(scale_error),
        "drift": known.laws[0].in_words(span) if known.n_solutions > 2 else "not known: too few solutions",
        "solution_snr": float(np.median(bracket.noise2[alive] ** -0.5)),
        "gap_days": float(np.nanmin(nearest)),
        "n_solutions": known.n_solutions,
    }
    cubes = {
        "GAIN": np.exp(bracket.level).astype(np.complex64),
        "FLAG": ~alive,
        "SNR": np.where(alive, 1 / np.where(alive, error, 1.0), 0.0).astype(np.float32),
        "ERROR": error,
        "QUALITY": quality.astype(np.int32),
    }
    dims = ("time", "antenna_name", "frequency", "polarization")
    dataset = xr.Dataset(
        {name: (dims, cube[None, :, None, :]) for name, cube in cubes.items()},
        coords={
            "time": ("time", [mjd], {"units": "d", "format": "mjd", "scale": "utc"}),
            "antenna_name": levels["antenna_name"].to_numpy().astype(str),
            "frequency": ("frequency", [float(levels.attrs.get("frequency", np.nan))], {"units": "Hz"}),
            "polarization": levels["polarization"].to_numpy().astype(str),
        },
        attrs=attributes,
    )
    return schema.check(dataset, schema.CALTABLE)


def shared_quality(gains: xr.Dataset) -> int:
    """QUALITY bits of `interpolate` that hold for a flux: those of more than `TOLD_FROM` of the receptors."""
    of_each = gains["QUALITY"].to_numpy()[~gains["FLAG"].to_numpy()]
    bits = (EXTRAPOLATED, BEYOND_VALIDITY, DRIFT_ASSUMED)
    return sum(bit for bit in bits if of_each.size and np.mean(of_each & bit > 0) > TOLD_FROM)


def _bracket(levels: xr.Dataset, mjd: float) -> _Bracket:
    """The nearest solutions of each antenna and polarisation on either side of a time."""
    time = levels["time"].to_numpy().astype(float)
    level, noise = levels["LEVEL"].to_numpy(), levels["ERROR"].to_numpy()
    good, early = np.isfinite(level), (time <= mjd)[:, None, None]
    place = np.arange(time.size)[:, None, None]
    before = np.where(good & early, place, -1).max(axis=0)
    after = np.where(good & ~early, place, time.size).min(axis=0)
    has_before, has_after = before >= 0, after < time.size
    one, two = np.where(has_before, before, 0), np.where(has_after, after, 0)
    since = np.where(has_before, mjd - time[one], np.nan)
    until = np.where(has_after, time[two] - mjd, np.nan)
    weight = np.where(has_before & has_after, until / (since + until), np.where(has_before, 1.0, 0.0))
    pick = functools.partial(_pick, one=one, two=two, weight=weight)
    found = has_before | has_after
    return _Bracket(
        np.where(found, pick(level), np.nan), np.where(found, pick(noise, power=2), np.nan), weight, since, until
    )


def _pick(values: Floats, one: Any, two: Any, weight: Floats, power: int = 1) -> Floats:
    """The weighted sum of two solutions (power 1), or of their variances (power 2)."""
    sides = [np.take_along_axis(values, index[None], axis=0)[0] for index in (one, two)]
    parts = [(w * np.where(w > 0, side, 0.0)) ** power for w, side in zip((weight, 1 - weight), sides, strict=True)]
    return np.asarray(parts[0] + parts[1])
