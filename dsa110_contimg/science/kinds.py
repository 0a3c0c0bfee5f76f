"""Complex gains as amplitudes and phases apart, and the scale of the whole array: kinds of tables beside B and G.

A complex table is the product of two: one of amplitudes with phase 0, one of phases with modulus 1. An error of 1 / SNR
of the modulus is one of 1 / SNR rad of the phase, so both have the SNR, and the flags, of what they were made from.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from dsa110_contimg import schema
from dsa110_contimg.exceptions import CalibrationError, InputError
from dsa110_contimg.science.condense import Normal

PARTS = {"B": ("BA", "BP"), "G": ("GA", "GP")}
"""Kinds of the amplitudes and of the phases of a complex table."""


def amplitude_and_phase(table: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """A complex table as one of real positive amplitudes and one of phases of modulus 1; their product is the table.

    Raises
    ------
    InputError
        A table of delays, which has no amplitudes.
    """
    if "DELAY" in table:
        raise InputError("Delays have no amplitudes", found=table.attrs.get("kind"), expected="complex gains")
    gain = table["GAIN"].to_numpy().astype(complex)
    size = np.abs(gain)
    phase = np.divide(gain, size, out=np.ones_like(gain), where=size > 0)
    # a gain of 0 is none: it stays 0 in the amplitudes, and flagged
    amplitude, direction = (table["GAIN"].copy(data=part.astype(np.complex64)) for part in (size, phase))
    return table.assign(GAIN=amplitude), table.assign(GAIN=direction)


def figures(table: xr.Dataset) -> tuple[float, float]:
    """Flagged fraction and median SNR, counting only antennas that have a solution at all.

    Dead antennas are not the solution's fault; missing subbands are not either, so only channels that some antenna
    solved count.
    """
    good = ~table["FLAG"].to_numpy()
    alive, channels = good.any(axis=(0, 2, 3)), good.any(axis=(0, 1, 3))
    counted = good[:, alive][:, :, channels]
    if counted.size == 0:
        return 1.0, 0.0
    snr = table["SNR"].to_numpy()[:, alive][:, :, channels][counted]
    return float(1.0 - counted.mean()), float(np.median(snr))


@dataclass(frozen=True)
class ArrayScale:
    """One real gain that all antennas share.

    Attributes
    ----------
    gain : (polarization,); its square multiplies the model's visibilities. NaN where there are no data.
    error : (polarization,), 1-sigma, from the residual against the model.
    """

    gain: NDArray[np.float64]
    error: NDArray[np.float64]


def array_scale(normal: Normal) -> ArrayScale:
    """The gain g of all antennas that minimises sum w |V - g^2 M|^2, by polarisation.

    g^2 = sum Re C / sum P, with an error of sqrt(c / sum P), c the reduced chi-square. That is the error of noise: what
    the model has wrong, all its fluxes too high say, moves g and hardly changes c.

    Raises
    ------
    CalibrationError
        The data do not have the sign of the model: their mean product is not positive.
    """
    cross, power, total, number = (values.sum(axis=(0, 1, 2)) for values in normal.sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        square = np.where(power > 0, cross.real / power, np.nan)
        misfit = np.maximum(total - cross.real * square, 0.0) / np.maximum(2.0 * number - 1.0, 1.0)
        error = np.sqrt(misfit / power)
        if not (square[power > 0] > 0).all() or not (power > 0).any():
            raise CalibrationError(
                "There is no scale that makes the model the data", found=square.tolist(), expected="positive ratios"
            )
        gain = np.sqrt(square)
        return ArrayScale(gain, error / (2.0 * gain))


def scale_table(scale: ArrayScale, coords: dict[str, NDArray[np.generic]], refant: str, min_snr: float) -> xr.Dataset:
    """The scale as a CalTable view with the same gain for every antenna; below ``min_snr`` it is flagged.

    Parameters
    ----------
    coords : time (1,), antenna_name, frequency (1,) and polarization
    """
    dims = ("time", "antenna_name", "frequency", "polarization")
    shape = (1, coords["antenna_name"].size, 1, scale.gain.size)
    snr = np.nan_to_num(scale.gain / scale.error, nan=0.0, posinf=0.0)
    values = {"GAIN": np.nan_to_num(scale.gain, nan=1.0).astype(np.complex64), "FLAG": snr < min_snr}
    values |= {"SNR": snr.astype(np.float32)}
    dataset = xr.Dataset(
        {name: (dims, np.broadcast_to(value, shape).copy()) for name, value in values.items()},
        coords={
            "time": ("time", coords["time"], {"units": "d", "format": "mjd", "scale": "utc"}),
            "antenna_name": coords["antenna_name"],
            "frequency": ("frequency", coords["frequency"], {"units": "Hz"}),
            "polarization": coords["polarization"],
        },
        attrs={"kind": "G Jones", "refant": refant},
    )
    return schema.check(dataset, schema.CALTABLE)
