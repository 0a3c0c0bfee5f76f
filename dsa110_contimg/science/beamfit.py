"""The primary beam from the sky: apparent fluxes of catalogue sources against where they stood in the beam.

A source that drifts through is measured group after group. Its flux in an image, before beam correction, over its
catalogue flux is the beam, averaged over the drift of that group, times its spectrum. With the beam a spline in angle
that average is linear in the spline's coefficients, so a night of photometry gives the beam by least squares, errors
and all, without asking where in the beam a source was "on average".

The catalogue is wrong by some per cent for every single source (and sources vary), so each source has its own error
in the fit besides its noise, and a source that crosses the beam several times tells the shape by itself: the errors of
one source are taken as correlated, fully, by its catalogue error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.interpolate import BSpline
from scipy.linalg import solve_triangular
from scipy.optimize import lsq_linear

from dsa110_contimg import telescope
from dsa110_contimg.exceptions import MeasurementError
from dsa110_contimg.science.beam import airy_power, separation
from dsa110_contimg.science.response import Response

COLUMNS = (
    "source", "group", "ra_deg", "dec_deg", "flux_raw_jy", "smearing", "local_noise_jy", "catalog_flux_jy",
    "catalog_error_jy", "spectral_index",
)  # fmt: skip
"""What is read of photometry, with the catalogue's error and spectral index."""

GAIN_ERROR = 0.01
"""Relative error of one measurement besides noise: gains between calibrators, deconvolution, pointing."""

_ROBUST_SIGMA = 4.0
_ROUNDS = 8


@dataclass(frozen=True)
class FitLimits:
    """How smooth, how far, and what to trust.

    Attributes
    ----------
    last_deg : angle at 1.4 GHz where the profile ends.
    n_knots : intervals of the cubic spline between 0 and there, equal in the square of the angle.
    least_snr : catalogue flux over noise of the faintest measurement that is used. Not the measured flux, which would
        choose sources that noise has brightened.
    catalog_error : least relative error of a catalogue flux: its scale, resolution, variability.
    """

    last_deg: float = 2.1
    n_knots: int = 4
    least_snr: float = 10.0
    catalog_error: float = 0.05


LIMITS = FitLimits()


@dataclass(frozen=True)
class BeamFit:
    """A radial beam.

    Attributes
    ----------
    angle_deg : (angle,) at 1.4 GHz; the beam scales with frequency.
    power, error : (angle,) 1 on axis; 1 sigma.
    scale : flux scale of the measurements over the catalogue's.
    chi_square : reduced, of what was kept.
    n_measurements, n_sources, n_rejected : int
    """

    angle_deg: NDArray[np.float64]
    power: NDArray[np.float64]
    error: NDArray[np.float64]
    scale: float
    chi_square: float
    n_measurements: int
    n_sources: int
    n_rejected: int

    @property
    def airy(self) -> NDArray[np.float64]:
        """The Airy pattern of the dish at the same angles, to compare with."""
        return airy_power(np.radians(self.angle_deg), telescope.REFERENCE_FREQUENCY_HZ)


def fit_beam(photometry: pd.DataFrame, responses: Mapping[str, Response], limits: FitLimits = LIMITS) -> BeamFit:
    """Fit a radial primary beam to photometry of many groups.

    For every measurement flux_raw / (smearing x catalogue flux) = k mean_tf [(f / f0)^alpha B(theta_t f / f0)], a mean
    over the image's weights, with B(u) = Airy(u) S(u^2) and S a cubic spline whose coefficients are not negative, so
    that B is positive and even. Generalised least squares: noise and `GAIN_ERROR` by measurement, the catalogue's
    error common to all measurements of a source; outliers beyond 4 sigma are left out. What has no angle in it, the
    scale k, cannot be told from B on axis, and is divided out.

    Parameters
    ----------
    photometry : DataFrame
        `COLUMNS`.
    responses : mapping of group to its image's Response
        Pointings, frequencies and weights; its beam is not used.
    limits : FitLimits

    Raises
    ------
    MeasurementError
        Too few measurements, or too little of the beam covered, to say what it is.
    """
    table = _usable(photometry, responses, limits)
    last = np.radians(limits.last_deg)
    inner = np.linspace(0.0, last**2, limits.n_knots + 1)
    knots = np.concatenate([np.zeros(3), inner, np.full(3, inner[-1])])
    design = _design(table, responses, knots)
    seen = (table["smearing"] * table["catalog_flux_jy"]).to_numpy(np.float64)
    measured, noise = (table[name].to_numpy(np.float64) / seen for name in ("flux_raw_jy", "local_noise_jy"))
    relative = (table["catalog_error_jy"] / table["catalog_flux_jy"]).fillna(0.0).to_numpy(np.float64)
    shared = np.maximum(relative, limits.catalog_error)
    source = pd.factorize(table["source"])[0]
    keep, model = np.ones(len(table), np.bool_), np.clip(measured, 0.0, None)
    for _ in range(_ROUNDS):
        spread = np.sqrt(noise**2 + (GAIN_ERROR * model) ** 2)
        left, right = _whitened(design, measured, (spread, shared * model, source), keep)
        found = lsq_linear(left, right, bounds=(0.0, np.inf)).x
        model = design @ found
        better = np.abs(measured - model) < _ROBUST_SIGMA * np.hypot(spread, shared * model)
        if (better == keep).all():
            break
        keep = better
    covariance = np.linalg.pinv(left.T @ left)
    chi_square = float(((right - left @ found) ** 2).sum()) / max(len(right) - len(found), 1)
    angle = np.linspace(0.0, last, 43)
    profile = _basis(angle, knots)
    scale = float(profile[0] @ found)
    if not scale > 0.0:
        raise MeasurementError("No beam in the photometry", found="no flux on axis", expected="sources that are there")
    power = profile @ found / scale
    # of the ratio to the value on axis, both of one fit
    gradient = (profile - power[:, None] * profile[0]) / scale
    error = np.sqrt(np.einsum("ai,ij,aj->a", gradient, covariance, gradient) * max(chi_square, 1.0))
    n_sources = len(np.unique(source[keep]))
    return BeamFit(
        np.degrees(angle), power, error, scale, chi_square, int(keep.sum()), n_sources, int((~keep).sum())
    )  # fmt: skip


def _usable(photometry: pd.DataFrame, responses: Mapping[str, Response], limits: FitLimits) -> pd.DataFrame:
    """Finite, bright measurements that stayed within the profile's angle all the time."""
    missing = [name for name in COLUMNS if name not in photometry]
    if missing:
        raise MeasurementError("Photometry lacks columns", found=list(photometry.columns), expected=missing)
    good = photometry[photometry["group"].isin(list(responses))]
    needed = good[["flux_raw_jy", "smearing", "local_noise_jy", "catalog_flux_jy", "spectral_index"]].astype(float)
    positive = (needed[["smearing", "local_noise_jy", "catalog_flux_jy"]] > 0).all(axis=1)
    bright = needed["catalog_flux_jy"] * needed["smearing"] > limits.least_snr * needed["local_noise_jy"]
    good = good[np.isfinite(needed).all(axis=1) & positive & bright]
    farthest = np.zeros(len(good))
    for group, rows in good.groupby("group").indices.items():
        farthest[rows] = np.degrees(_scaled_angles(good.iloc[rows], responses[group]).max(axis=(1, 2)))
    inside = farthest <= limits.last_deg
    reached = float(farthest[inside].max()) if inside.any() else 0.0
    least = 10 * limits.n_knots
    if inside.sum() < least or reached < 0.7 * limits.last_deg:
        raise MeasurementError(
            "Too little photometry for a beam",
            found=f"{inside.sum()} measurements out to {reached:.2f} deg",
            expected=f"at least {least}, out to {0.7 * limits.last_deg:.2f} deg",
        )
    return good[inside].reset_index(drop=True)


def _scaled_angles(rows: pd.DataFrame, response: Response) -> NDArray[np.float64]:
    """(source, time, bin) angle from the pointing times f / f0 (rad)."""
    ra, dec = (np.radians(rows[name].to_numpy(np.float64))[:, None] for name in ("ra_deg", "dec_deg"))
    theta = separation(ra, dec, response.pointing_ra, response.pointing_dec)
    return np.asarray(theta[..., None] * (response.frequencies / telescope.REFERENCE_FREQUENCY_HZ))


def _basis(angle: NDArray[np.float64], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """(..., coefficient) Airy(u) times each B-spline in u^2."""
    square = np.clip(angle.ravel() ** 2, 0.0, knots[-1])
    splines = BSpline.design_matrix(square, knots, 3).toarray()
    airy = airy_power(angle.ravel(), telescope.REFERENCE_FREQUENCY_HZ)
    return np.asarray((splines * airy[:, None]).reshape(*angle.shape, -1))


def _design(table: pd.DataFrame, responses: Mapping[str, Response], knots: NDArray[np.float64]) -> NDArray[np.float64]:
    """(measurement, coefficient): each basis function as the images saw it, for each source's spectrum."""
    out = np.empty((len(table), len(knots) - 4))
    for group, rows in table.groupby("group").indices.items():
        response = responses[group]
        here = table.iloc[rows]
        basis = _basis(_scaled_angles(here, response), knots)
        index = here["spectral_index"].to_numpy(np.float64)
        spectrum = (response.frequencies / telescope.REFERENCE_FREQUENCY_HZ) ** index[:, None]
        out[rows] = np.einsum("tf,sf,stfk->sk", response.weights / response.weights.sum(), spectrum, basis)
    return out


def _whitened(
    design: NDArray[np.float64],
    measured: NDArray[np.float64],
    errors: tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]],
    keep: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Design and measurements divided by the root of their covariance: own errors, and one for each source."""
    own, shared, source = errors
    left, right = np.empty((keep.sum(), design.shape[1])), np.empty(keep.sum())
    kept = np.flatnonzero(keep)
    for place in pd.Series(np.arange(len(kept))).groupby(source[kept]).indices.values():
        rows = kept[place]
        covariance = np.diag(own[rows] ** 2) + np.outer(shared[rows], shared[rows])
        root = np.linalg.cholesky(covariance)
        solved = solve_triangular(root, np.column_stack([design[rows], measured[rows]]), lower=True)
        left[place], right[place] = solved[:, :-1], solved[:, -1]
    return left, right
