"""Counting every visibility: the arithmetic under the figures, on bare arrays.

Each kernel runs without the interpreter's lock and adds to arrays that belong to one thread, so that several blocks of
a Dataset are counted at a time and summed at the end. None leaves a datum out: what is not counted is flagged, in a
row or hand that was not asked for, or not finite, and the last is returned.

Amplitudes are counted on bins that are linear within each octave (as in an HDR histogram): the exponent and the first
`AMPLITUDE_BITS` of the fraction of a float32. Any range with evenly spaced bins follows from these by exact sums
(`linear_rows`), so that the data are read once and the panel is chosen afterwards.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

AMPLITUDE_BITS = 7
"""Bins in an octave: 2 to this power."""
_LOWEST_EXPONENT, _HIGHEST_EXPONENT = -32, 32
_SHIFT = 23 - AMPLITUDE_BITS
_FIRST = (_LOWEST_EXPONENT + 127) << AMPLITUDE_BITS
AMPLITUDE_BINS = (_HIGHEST_EXPONENT - _LOWEST_EXPONENT) << AMPLITUDE_BITS
_INFINITE = 0x7F800000
# arctan(z), 0 <= z <= 1, as an odd polynomial (Hastings 1955, sheet 13): wrong by less than 1e-5 rad
_A1, _A3, _A5, _A7, _A9 = (np.float32(a) for a in (0.9998660, -0.3302995, 0.1801410, -0.0851330, 0.0208351))
_ONE, _TWO, _FOUR = np.float32(1.0), np.float32(2.0), np.float32(4.0)
_QUARTERS = np.float32(2.0 / np.pi)


def amplitude_edges() -> NDArray[np.float64]:
    """(`AMPLITUDE_BINS` + 1,) edges of the amplitude bins; the first also holds all that is smaller, and zero."""
    octave, step = np.divmod(np.arange(AMPLITUDE_BINS + 1), 1 << AMPLITUDE_BITS)
    return np.ldexp(1.0 + step / (1 << AMPLITUDE_BITS), octave + _LOWEST_EXPONENT)


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def amplitude_counts(
    value: NDArray[np.complex64],
    flag: NDArray[np.bool_],
    row_x: NDArray[np.float64],
    channel_x: NDArray[np.float64],
    hands: NDArray[np.bool_],
    out: NDArray[np.int64],
) -> int:
    """Add |V| of a block to a histogram.

    Parameters
    ----------
    value, flag : (time, baseline, channel, polarization), C-contiguous
    row_x : (time, baseline)
        Column of a datum is floor(``row_x`` + ``channel_x``), held within the histogram; a row that is NaN is not
        wanted.
    channel_x : (channel,)
    hands : (polarization,)
        Which are wanted.
    out : (column, `AMPLITUDE_BINS`)

    Returns
    -------
    Number of unflagged visibilities that are not finite.
    """
    n_time, n_baseline, n_channel, n_pol = value.shape
    size = np.empty(n_channel * n_pol, np.float32)
    bits = size.view(np.int32)
    bad = 0
    for t in range(n_time):
        for b in range(n_baseline):
            x = row_x[t, b]
            if np.isnan(x):
                continue
            row = value[t, b].reshape(n_channel * n_pol)
            for i in range(size.size):
                size[i] = np.sqrt(row[i].real * row[i].real + row[i].imag * row[i].imag)
            for c in range(n_channel):
                column = min(max(int(x + channel_x[c]), 0), out.shape[0] - 1)
                for p in range(n_pol):
                    if hands[p] and not flag[t, b, c, p]:
                        word = bits[c * n_pol + p]
                        if word >= _INFINITE or word < 0:
                            bad += 1
                        else:
                            out[column, min(max((word >> _SHIFT) - _FIRST, 0), AMPLITUDE_BINS - 1)] += 1
    return bad


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def phase_counts(
    value: NDArray[np.complex64],
    flag: NDArray[np.bool_],
    row_x: NDArray[np.float64],
    channel_x: NDArray[np.float64],
    hands: NDArray[np.bool_],
    out: NDArray[np.int64],
) -> int:
    """Add arg(V) of a block to a histogram of (column, phase from -pi to pi); parameters as `amplitude_counts`.

    The arctangent is a polynomial good to 1e-5 rad, a thousandth of a bin of half a degree. Zero has no phase and
    counts as not finite.
    """
    n_time, n_baseline, n_channel, n_pol = value.shape
    turn = np.empty(n_channel * n_pol, np.float32)
    scale = np.float32(out.shape[1] / 4.0)
    bad = 0
    for t in range(n_time):
        for b in range(n_baseline):
            x = row_x[t, b]
            if np.isnan(x):
                continue
            row = value[t, b].reshape(n_channel * n_pol)
            for i in range(turn.size):
                turn[i] = _quarter_turns(row[i].real, row[i].imag)
            for c in range(n_channel):
                column = min(max(int(x + channel_x[c]), 0), out.shape[0] - 1)
                for p in range(n_pol):
                    if hands[p] and not flag[t, b, c, p]:
                        angle = turn[c * n_pol + p]
                        if np.isfinite(angle):
                            out[column, min(int((angle + _TWO) * scale), out.shape[1] - 1)] += 1
                        else:
                            bad += 1
    return bad


@njit(nogil=True, cache=True, error_model="numpy", inline="always")  # type: ignore[untyped-decorator]
def _quarter_turns(real: np.float32, imaginary: np.float32) -> np.float32:
    """Argument of a complex number in units of 90 degrees, -2 to 2; NaN for zero and what is not finite."""
    width, height = abs(real), abs(imaginary)
    longer = max(width, height)
    z = min(width, height) / longer
    square = z * z
    angle = _QUARTERS * z * (_A1 + square * (_A3 + square * (_A5 + square * (_A7 + square * _A9))))
    angle = _ONE - angle if height > width else angle
    angle = _TWO - angle if real < 0 else angle
    angle = -angle if imaginary < 0 else angle
    return angle + (longer - longer)  # NaN if infinite


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def uv_counts(
    flag: NDArray[np.bool_],
    uv_m: NDArray[np.float64],
    scale: NDArray[np.float64],
    hands: NDArray[np.bool_],
    count: NDArray[np.int64],
    total: NDArray[np.float64],
) -> None:
    """Add the unflagged visibilities of a block to a square grid of the uv plane.

    Parameters
    ----------
    flag : (time, baseline, channel, polarization)
    uv_m : (time, baseline, 2) m
        A row with NaN is not wanted.
    scale : (channel,)
        Pixels per metre: (u, v) falls on column u ``scale`` + n / 2 and row v ``scale`` + n / 2. Proportional to
        frequency.
    hands : (polarization,)
    count, total : (v, u)
        Number, and sum of ``scale``, of the visibilities on a pixel. What lies outside is not counted; the caller
        chooses the grid.
    """
    n_time, n_baseline, n_channel, n_pol = flag.shape
    middle = count.shape[0] / 2.0
    for t in range(n_time):
        for b in range(n_baseline):
            u, v = uv_m[t, b, 0], uv_m[t, b, 1]
            if np.isnan(u) or np.isnan(v):
                continue
            # neighbouring channels mostly share a pixel: they are added up before they are stored
            last_x, last_y, waiting, scales = -1, -1, 0, 0.0
            for c in range(n_channel):
                good = 0
                for p in range(n_pol):
                    if hands[p] and not flag[t, b, c, p]:
                        good += 1
                x, y = int(np.floor(u * scale[c] + middle)), int(np.floor(v * scale[c] + middle))
                if x != last_x or y != last_y:
                    if 0 <= last_x < count.shape[1] and 0 <= last_y < count.shape[0]:
                        count[last_y, last_x] += waiting
                        total[last_y, last_x] += scales
                    last_x, last_y, waiting, scales = x, y, 0, 0.0
                waiting += good
                scales += good * scale[c]
            if 0 <= last_x < count.shape[1] and 0 <= last_y < count.shape[0]:
                count[last_y, last_x] += waiting
                total[last_y, last_x] += scales


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def column_counts(
    flag: NDArray[np.bool_],
    row_x: NDArray[np.float64],
    channel_x: NDArray[np.float64],
    hands: NDArray[np.bool_],
    out: NDArray[np.int64],
    by_baseline: NDArray[np.int64],
) -> None:
    """Add the unflagged visibilities of a block to a histogram of columns, and to one of baselines.

    Parameters as `amplitude_counts`; ``by_baseline`` : (baseline,).
    """
    n_time, n_baseline, n_channel, n_pol = flag.shape
    for t in range(n_time):
        for b in range(n_baseline):
            x = row_x[t, b]
            if np.isnan(x):
                continue
            for c in range(n_channel):
                column = min(max(int(x + channel_x[c]), 0), out.shape[0] - 1)
                for p in range(n_pol):
                    if hands[p] and not flag[t, b, c, p]:
                        out[column] += 1
                        by_baseline[b] += 1


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def waterfall_sums(
    value: NDArray[np.complex64],
    flag: NDArray[np.bool_],
    turned: NDArray[np.bool_],
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    amplitude: NDArray[np.float64],
    phasor: NDArray[np.complex128],
    number: NDArray[np.int64],
) -> None:
    """Add |V| and V / |V| of all baselines of a block to a (time, frequency) plane for each polarisation.

    Parameters
    ----------
    value, flag : (time, baseline, channel, polarization)
    turned : (baseline,)
        Baselines whose visibilities are conjugated first.
    rows, columns : (time,), (channel,)
        Row and column of the planes for each integration and channel.
    amplitude, phasor, number : (row, column, polarization)
        Sums, and how many unflagged and finite visibilities entered.
    """
    n_time, n_baseline, n_channel, n_pol = value.shape
    for t in range(n_time):
        i = rows[t]
        for b in range(n_baseline):
            sign = -1.0 if turned[b] else 1.0
            for c in range(n_channel):
                j = columns[c]
                for p in range(n_pol):
                    real, imaginary = float(value[t, b, c, p].real), sign * float(value[t, b, c, p].imag)
                    size = np.sqrt(real * real + imaginary * imaginary)
                    if not flag[t, b, c, p] and np.isfinite(size):
                        number[i, j, p] += 1
                        amplitude[i, j, p] += size
                        if size > 0:
                            phasor[i, j, p] += complex(real / size, imaginary / size)


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def baseline_sums(
    value: NDArray[np.complex64],
    flag: NDArray[np.bool_],
    amplitude: NDArray[np.float64],
    number: NDArray[np.int64],
) -> None:
    """Add |V| of a block, and how many there are, to arrays (baseline, polarization)."""
    n_time, n_baseline, n_channel, n_pol = value.shape
    for t in range(n_time):
        for b in range(n_baseline):
            for c in range(n_channel):
                for p in range(n_pol):
                    real, imaginary = float(value[t, b, c, p].real), float(value[t, b, c, p].imag)
                    size = np.sqrt(real * real + imaginary * imaginary)
                    if not flag[t, b, c, p] and np.isfinite(size):
                        amplitude[b, p] += size
                        number[b, p] += 1


@njit(nogil=True, cache=True, error_model="numpy")  # type: ignore[untyped-decorator]
def flag_counts(
    flag: NDArray[np.bool_],
    rows: NDArray[np.bool_],
    by_channel: NDArray[np.int64],
    by_baseline: NDArray[np.int64],
    by_time: NDArray[np.int64],
) -> None:
    """Add the flagged visibilities of the baselines ``rows``: arrays (channel, pol), (baseline, pol), (time, pol)."""
    n_time, _, n_channel, n_pol = flag.shape
    for t in range(n_time):
        for b in np.flatnonzero(rows):
            for c in range(n_channel):
                for p in range(n_pol):
                    one = int(flag[t, b, c, p])
                    by_channel[c, p] += one
                    by_baseline[b, p] += one
                    by_time[t, p] += one
