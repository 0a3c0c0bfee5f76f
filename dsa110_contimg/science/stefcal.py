"""Antenna gains by alternating least squares: a solver of our own, independent of CASA's.

StEFCal (Salvini & Wijnholds 2014, A&A 571, A97): with all other antennas held, the gain of one has a closed form, so
all are updated in turn, and every second step is averaged with the one before, which makes the sequence converge. It
works on the normal equations of `condense`, so its cost does not depend on how much data a solution takes.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import xarray as xr
from numba import get_num_threads, njit
from numpy.typing import NDArray

from dsa110_contimg import schema
from dsa110_contimg.exceptions import CalibrationError, InputError
from dsa110_contimg.science.condense import Normal, accumulate

MIN_BASELINES = 4
"""An antenna with fewer has no solution: CASA's minblperant."""

_TOLERANCE = 1e-6
_MAX_ITERATIONS = 500


@dataclass(frozen=True)
class Solutions:
    """Gains of cells, reference phase removed.

    Attributes
    ----------
    gain : (time, antenna, channel, polarization) complex128; NaN where there is none.
    error : the same shape, float64
        1-sigma of the real (and of the imaginary) part, from the diagonal of the Hessian and chi-square. What it
        leaves out is of order 1 / N, and the phase of the reference antenna, whose error all others carry on top.
    converged : (time, channel, polarization) whether the gains stood still before the iterations were over.
    chi_square : (time, channel, polarization), reduced, for weights as given: 1 over the scale that makes them 1 /
        variance.
    """

    gain: NDArray[np.complex128]
    error: NDArray[np.float64]
    converged: NDArray[np.bool_]
    chi_square: NDArray[np.float64]

    @property
    def snr(self) -> NDArray[np.float64]:
        """Modulus of the gain over its error; 0 where there is no solution."""
        return np.nan_to_num(np.abs(self.gain) / self.error, nan=0.0, posinf=0.0)


@njit(cache=True)
def _usable(weight: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Antennas with enough baselines to antennas that have enough; ``weight`` (antenna, antenna) is symmetric."""
    n = weight.shape[0]
    good = np.ones(n, np.bool_)
    changed = True
    while changed:
        changed = False
        for i in range(n):
            if good[i]:
                count = 0
                for j in range(n):
                    if good[j] and weight[i, j] > 0.0:
                        count += 1
                if count < MIN_BASELINES:
                    good[i] = False
                    changed = True
    return good


@njit(cache=True)
def _first_guess(cross: NDArray[np.complex128], power: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Phases against the best-connected antenna, and one amplitude for all: the iteration needs no more."""
    n = cross.shape[0]
    hub = int(np.argmax(power.sum(axis=1)))
    level = 0.0 if power.sum() <= 0.0 else np.sqrt(np.abs(cross).sum() / power.sum())
    gain = np.empty(n, np.complex128)
    for i in range(n):
        size = np.abs(cross[i, hub])
        gain[i] = level * cross[i, hub] / size if size > 0.0 else complex(level, 0.0)
    return gain


@njit(cache=True)
def _alternate(
    cross: NDArray[np.complex128], power: NDArray[np.float64], phase_only: bool, tolerance: float, most: int
) -> tuple[NDArray[np.complex128], bool]:
    """Gains of one cell, g_i = sum_j C_ij g_j / sum_j P_ij |g_j|^2; C is Hermitian, P symmetric, both with 0 diagonal.

    Phase-only gains have modulus 1: g_i is the direction of sum_j C_ij g_j.
    """
    n = cross.shape[0]
    gain = _first_guess(cross, power)
    if phase_only:
        for i in range(n):
            size = np.abs(gain[i])
            gain[i] = gain[i] / size if size > 0.0 else complex(1.0, 0.0)
    new = np.empty_like(gain)
    for iteration in range(most):
        for i in range(n):
            above, below = complex(0.0, 0.0), 0.0
            for j in range(n):
                above += cross[i, j] * gain[j]
                below += power[i, j] * (gain[j].real ** 2 + gain[j].imag ** 2)
            if phase_only:
                below = np.abs(above)
            new[i] = above / below if below > 0.0 else gain[i]
        change, size = 0.0, 0.0
        for i in range(n):
            value = new[i] if iteration % 2 == 0 else 0.5 * (new[i] + gain[i])
            if phase_only:
                value = value / max(np.abs(value), 1e-300)
            change += np.abs(value - gain[i]) ** 2
            size += np.abs(value) ** 2
            gain[i] = value
        # a full step alone can stand still while it swings between two values; a halved one cannot
        if iteration % 2 == 1 and change <= tolerance**2 * size:
            return gain, True
    return gain, False


@njit(nogil=True, cache=True)
def _solve(
    cells: tuple[int, int],
    cross: NDArray[np.complex128],
    power: NDArray[np.float64],
    antennas: NDArray[np.int64],
    phase_only: bool,
    out: tuple[NDArray[np.complex128], NDArray[np.float64], NDArray[np.float64], NDArray[np.bool_]],
) -> None:
    """A run of cells, (cell, baseline), into gain and Hessian (cell, antenna), chi-square less w|V|^2, converged."""
    gain, hessian, misfit, converged = out
    n_antennas = gain.shape[1]
    for cell in range(cells[0], cells[1]):
        c = np.zeros((n_antennas, n_antennas), np.complex128)
        p = np.zeros((n_antennas, n_antennas))
        for b in range(antennas.shape[0]):
            i, j = antennas[b, 0], antennas[b, 1]
            if i != j and power[cell, b] > 0.0:
                c[i, j] += cross[cell, b]
                c[j, i] += cross[cell, b].conjugate()
                p[i, j] += power[cell, b]
                p[j, i] += power[cell, b]
        good = _usable(p)
        for i in range(n_antennas):
            for j in range(n_antennas):
                if not (good[i] and good[j]):
                    c[i, j] = 0.0
                    p[i, j] = 0.0
        found, done = _alternate(c, p, phase_only, _TOLERANCE, _MAX_ITERATIONS)
        converged[cell] = done
        for i in range(n_antennas):
            gain[cell, i] = found[i] if good[i] else complex(np.nan, np.nan)
            for j in range(n_antennas):
                size = found[j].real ** 2 + found[j].imag ** 2
                hessian[cell, i] += p[i, j] * size
                if j > i:
                    both = found[i] * found[j].conjugate()
                    misfit[cell] += p[i, j] * np.abs(both) ** 2 - 2.0 * (both.conjugate() * c[i, j]).real


def solve_normal(
    normal: Normal,
    antennas: NDArray[np.int64],
    n_antennas: int,
    *,
    phase_only: bool = False,
    refants: tuple[int, ...] = (0,),
) -> Solutions:
    """Gains of every cell: the minimum of sum w |V - g_i conj(g_j) M|^2.

    Parameters
    ----------
    antennas : (baseline, 2)
    phase_only : bool
        Gains of modulus 1; the model must then carry the amplitudes.
    refants : indices of antennas
        The first that has a solution in a cell gets phase 0 there.

    Raises
    ------
    CalibrationError
        No antenna has a solution in any cell.
    """
    shape = normal.cross.shape
    cells = shape[0] * shape[2] * shape[3]
    cross = np.ascontiguousarray(np.moveaxis(normal.cross, 1, -1), complex).reshape(cells, -1)
    power = np.ascontiguousarray(np.moveaxis(normal.power, 1, -1), float).reshape(cells, -1)
    gain: NDArray[np.complex128] = np.zeros((cells, n_antennas), np.complex128)
    hessian, misfit, converged = np.zeros((cells, n_antennas)), np.zeros(cells), np.zeros(cells, bool)
    out = gain, hessian, misfit, converged
    threads = get_num_threads()
    runs = pairwise(np.linspace(0, cells, threads + 1).astype(int).tolist())
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda run: _solve(run, cross, power, antennas, phase_only, out), runs))
    solved = np.isfinite(gain)
    if not solved.any():
        raise CalibrationError(
            "No antenna has a solution", found="no cell with enough baselines", expected=f"{MIN_BASELINES} an antenna"
        )
    parameters = solved.sum(axis=1) * (1 if phase_only else 2) - 1
    freedom = np.maximum(2.0 * normal.number.sum(axis=1).ravel() - parameters, 1.0)
    chi_square = np.maximum(normal.total.sum(axis=1).ravel() + misfit, 0.0) / freedom
    # chi-square counts real and imaginary parts, each of variance chi_square / w
    with np.errstate(divide="ignore", invalid="ignore"):
        error = np.where(solved, np.sqrt(chi_square[:, None] / hessian), np.nan)
    gain = _referred(gain, refants)
    few = shape[0], shape[2], shape[3]
    return Solutions(
        gain=np.moveaxis(gain.reshape(*few, n_antennas), -1, 1),
        error=np.moveaxis(error.reshape(*few, n_antennas), -1, 1),
        converged=converged.reshape(few),
        chi_square=chi_square.reshape(few),
    )


def _referred(gain: NDArray[np.complex128], refants: tuple[int, ...]) -> NDArray[np.complex128]:
    """(cell, antenna) with the phase of the first reference antenna that is solved taken from all."""
    candidates = gain[:, list(refants)]
    first = np.isfinite(candidates).argmax(axis=1)
    chosen = candidates[np.arange(len(gain)), first]
    turn = np.where(np.isfinite(chosen) & (chosen != 0), chosen, 1.0)
    return np.asarray(gain * (np.abs(turn) / turn)[:, None])


def common_phases(
    normal: Normal, antennas: NDArray[np.int64], n_antennas: int, refants: tuple[int, ...]
) -> NDArray[np.complex64]:
    """How phases move in time, (time, antenna, 1, polarization), modulus 1; NaN where there is no solution.

    Each channel of the sums is solved by itself, because delays that are still in the data would cancel a mean over
    them; what moves is common to all. The phase that stays is not part of it, and goes to the bandpass.
    """
    gain = solve_normal(normal, antennas, n_antennas, phase_only=True, refants=refants).gain
    gain = np.where(np.isfinite(gain), gain, 0.0)
    moved = (gain * gain.sum(axis=0, keepdims=True).conj()).sum(axis=2, keepdims=True)
    phases = np.full(moved.shape, complex(np.nan, np.nan), np.complex64)
    np.divide(moved, np.abs(moved), out=phases, where=moved != 0, casting="same_kind")
    return phases


def normal_equations(dataset: xr.Dataset, integrations: int = 0, channels: int = 0) -> Normal:
    """The sums of a Visibilities view with MODEL, parallel hands only, in cells of so many integrations and channels.

    Parameters
    ----------
    integrations, channels : int
        Of a cell; 0 for all of them in one.

    Raises
    ------
    InputError
        There is no MODEL.
    """
    if "MODEL" not in dataset:
        raise InputError("Gains are solved against a model", found=list(dataset.data_vars), expected="MODEL")
    order = ("time", "baseline_id", "frequency", "polarization")
    view = dataset[["VISIBILITY", "MODEL", "FLAG", "WEIGHT"]].isel(polarization=_parallel(dataset)).transpose(*order)
    n_time, n_baseline, n_channel, n_pol = (view.sizes[name] for name in order)
    cells = -(-n_time // integrations) if integrations else 1, -(-n_channel // channels) if channels else 1
    normal = Normal.empty(cells[0], n_baseline, cells[1], n_pol)
    cubes = (
        np.ascontiguousarray(view["VISIBILITY"].to_numpy(), np.complex64),
        np.ascontiguousarray(view["MODEL"].to_numpy(), np.complex64),
        np.ascontiguousarray(view["FLAG"].to_numpy()),
    )
    weights = np.ascontiguousarray(view["WEIGHT"].to_numpy(), np.float32)
    ones = np.ones((1, len(antenna_names(dataset)), 1, n_pol), np.complex64)
    accumulate(cubes, weights, ones, _indices(dataset), (integrations, channels), 0, normal.sums)
    return normal


def _parallel(dataset: xr.Dataset) -> list[int]:
    hands = [str(name) for name in dataset["polarization"].to_numpy()]
    found = [hands.index(hand) for hand in ("XX", "YY") if hand in hands]
    if not found:
        raise InputError("Gains are solved in parallel hands", found=hands, expected="XX, YY")
    return found


def antenna_names(dataset: xr.Dataset) -> list[str]:
    """Antennas of a view in the order of the solutions: as they stand in it, or else sorted as text."""
    if "antenna_name" in dataset.coords:
        return [str(name) for name in dataset["antenna_name"].to_numpy()]
    ends = [dataset[f"baseline_antenna{i}_name"].to_numpy().astype(str) for i in (1, 2)]
    return [str(name) for name in np.unique(np.concatenate(ends))]


def _indices(dataset: xr.Dataset) -> NDArray[np.int64]:
    number = {name: index for index, name in enumerate(antenna_names(dataset))}
    ends = [[number[str(name)] for name in dataset[f"baseline_antenna{i}_name"].to_numpy()] for i in (1, 2)]
    return np.array(ends, np.int64).T.copy()


def solve(
    dataset: xr.Dataset,
    kind: str = "G",
    *,
    integrations: int = 0,
    channels: int = 0,
    phase_only: bool = False,
    refants: tuple[str, ...] = (),
    min_snr: float = 3.0,
) -> xr.Dataset:
    """Gains of a Visibilities view against its MODEL, as a CalTable view.

    V = g_1 conj(g_2) MODEL, one gain an antenna, receptor, ``integrations`` and ``channels``.

    Parameters
    ----------
    kind : str
        What the table is called: G, B, GP.
    integrations, channels : int
        Of a solution; 0 for all.
    phase_only : bool
        Gains of modulus 1.
    refants : names of antennas
        In order of preference; by default the first of the view.
    min_snr : float
        Solutions with less are flagged.

    Raises
    ------
    InputError
        No MODEL, no parallel hands, or a reference antenna that is not there.
    CalibrationError
        No antenna has a solution.
    """
    names = antenna_names(dataset)
    if not set(refants) <= set(names):
        raise InputError("A reference antenna is not in the data", found=refants, expected=f"some of {names}")
    order = tuple(names.index(name) for name in refants) or (0,)
    normal = normal_equations(dataset, integrations, channels)
    solutions = solve_normal(normal, _indices(dataset), len(names), phase_only=phase_only, refants=order)
    times = np.asarray(dataset["time"].to_numpy(), np.float64)
    frequencies = np.asarray(dataset["frequency"].to_numpy(), np.float64)
    coords = {
        "time": _cell_means(times, integrations),
        "frequency": _cell_means(frequencies, channels),
        "antenna_name": np.array(names),
        "polarization": np.array([str(dataset["polarization"].to_numpy()[p])[0] for p in _parallel(dataset)]),
    }
    return as_caltable(solutions, coords, kind, names[order[0]], min_snr)


def _cell_means(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    edges = np.arange(0, values.size, size) if size else np.zeros(1, int)
    return np.asarray(np.add.reduceat(values, edges) / np.diff(np.append(edges, values.size)))


def as_caltable(
    solutions: Solutions, coords: dict[str, NDArray[np.generic]], kind: str, refant: str, min_snr: float
) -> xr.Dataset:
    """Solutions as a CalTable view; what has not converged, or has less than ``min_snr``, is flagged."""
    dims = ("time", "antenna_name", "frequency", "polarization")
    snr = solutions.snr
    flag = ~np.isfinite(solutions.gain) | (snr < min_snr) | ~solutions.converged[:, None]
    dataset = xr.Dataset(
        {
            "GAIN": (dims, np.where(np.isfinite(solutions.gain), solutions.gain, 1.0).astype(np.complex64)),
            "FLAG": (dims, flag),
            "SNR": (dims, snr.astype(np.float32)),
        },
        coords={
            "time": ("time", coords["time"], {"units": "d", "format": "mjd", "scale": "utc"}),
            "antenna_name": coords["antenna_name"],
            "frequency": ("frequency", coords["frequency"], {"units": "Hz"}),
            "polarization": coords["polarization"],
        },
        attrs={"kind": kind, "refant": refant},
    )
    return schema.check(dataset, schema.CALTABLE)


@dataclass(frozen=True)
class Agreement:
    """How two sets of solutions compare, reference phase removed.

    Attributes
    ----------
    compared : solutions that both have.
    rms_sigma : rms of the differences, real and imaginary parts, in units of the quoted error.
    rms_relative : rms of the differences relative to the gains.
    """

    compared: int
    rms_sigma: float
    rms_relative: float


def agreement(first: xr.Dataset, second: xr.Dataset) -> Agreement:
    """Compare two tables of the same times, antennas, frequencies and receptors; the errors are those of ``first``.

    The phase of an antenna is taken from both, the one of which most solutions are there in both: what is left is
    observable.

    Raises
    ------
    InputError
        The tables have different shapes, or no solution in common.
    """
    dims = ("time", "antenna_name", "frequency", "polarization")
    a, b = (table["GAIN"].transpose(*dims).to_numpy().astype(complex) for table in (first, second))
    if a.shape != b.shape:
        raise InputError("The tables are of different shapes", found=b.shape, expected=a.shape)
    both = ~(first["FLAG"].transpose(*dims).to_numpy() | second["FLAG"].transpose(*dims).to_numpy())
    if not both.any():
        raise InputError("The tables have no solution in common", found=0, expected="some")
    refant = int(both.sum(axis=(0, 2, 3)).argmax())
    both &= both[:, refant : refant + 1]
    a, b = (g * np.exp(-1j * np.angle(g[:, refant : refant + 1])) for g in (a, b))
    snr = first["SNR"].transpose(*dims).to_numpy().astype(float)
    relative = np.abs(a - b)[both] / np.abs(a)[both]
    in_sigma = relative * snr[both] / np.sqrt(2.0)
    rms = (float(np.sqrt(np.mean(values**2))) for values in (in_sigma, relative))
    return Agreement(int(both.sum()), *rms)
