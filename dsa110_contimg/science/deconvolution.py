"""Deconvolution: CLEAN by radler between griddings by ducc0, in one process.

Stopping follows WSClean: each major cycle cleans down to a fraction of the peak, then the model is subtracted from the
visibilities themselves; an automatic mask is made at one depth and cleaned to another. Both depths are in terms of the
noise that is left in the end: where the noise has fallen since they were reckoned, deconvolution goes on.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.apparent import ApparentSky
from dsa110_contimg.science.cleanmask import as_file
from dsa110_contimg.science.gridding import Gridder

MAD_TO_SIGMA = 1.482602218505602
_RISE = 1.2
"""A major cycle that leaves a residual peak above this times the one before has made things worse. It is undone and
repeated half as deep: the arms of the array make ridges in the point spread function that reach over the whole image,
of which CLEAN between griddings knows only the inner half."""
COARSE = 10.0
"""A residual may be gridded so many times less accurately than an image: the error is a fraction of what is gridded."""
_SHALLOWEST = 0.15
"""Depth at which that ends: the limit of what CLEAN can do is reached (a thousandth of the brightest source, say)."""
_SETTLED = 0.98
"""A residual whose noise is above this times what it was when deconvolution was resumed has nothing left to find."""
_ABOVE_EDGE = 2.0
_MOST_CALLS = 100
"""Times that radler is called at most: it may come back without a component, once its mask is made."""
_DUST = 1e-6
_DIVERGED = 0.2
"""A residual that cannot be kept below this times the dirty peak has diverged."""


@dataclass(frozen=True)
class MajorCycle:
    """State after a major cycle: what a progress callback is given.

    Attributes
    ----------
    number, iterations : major cycles and minor iterations so far.
    peak_jy, noise_jy : largest absolute value and robust rms of the residual (Jy/beam).
    model_jy : total flux of the model (Jy).
    """

    number: int
    iterations: int
    peak_jy: float
    noise_jy: float
    model_jy: float


@dataclass(frozen=True)
class Deconvolution:
    """Result of `clean`; images are ``[y, x]`` as in `gridding`.

    Attributes
    ----------
    model : Jy/pixel.
    residual : Jy/beam.
    cycles : the history.
    """

    model: NDArray[np.float32]
    residual: NDArray[np.float32]
    cycles: tuple[MajorCycle, ...]


def robust_rms(values: NDArray[np.floating]) -> float:
    """1.4826 times the median absolute deviation from the median; of finite values."""
    good = values[np.isfinite(values)]
    return float(MAD_TO_SIGMA * np.median(np.abs(good - np.median(good))))


def clean(
    gridder: Gridder,
    psf: NDArray[np.float32],
    options: ImageOptions,
    apparent: ApparentSky,
    progress: Callable[[MajorCycle], None] | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> Deconvolution:
    """CLEAN the visibilities of a gridder.

    Parameters
    ----------
    gridder : Gridder
    psf : (n, n)
        Its point spread function.
    options : ImageOptions
        ``max_iterations`` 0 returns the dirty image as the residual.
    apparent : ApparentSky
        Predicts the model's visibilities.
    progress : callable, optional
        Called after every major cycle.
    mask : (n, n) ``[y, x]``, optional
        Components may stand where it is True alone (`cleanmask`), and are taken down to ``threshold_sigma`` at once.
        Without it the automatic mask is made, unless ``options.mask`` is ``none``.

    Raises
    ------
    ImagingError
        The residual cannot be kept below a fifth of the dirty peak, or is not finite.
    """
    bad = int(np.count_nonzero(~np.isfinite(gridder.data.visibilities) & (gridder.weights > 0.0)))
    if bad:  # the gridder takes NaN for nothing, without a word
        raise ImagingError("Visibilities with weight are not finite", found=f"{bad} of them", expected="none")
    # of what is deconvolved, the residual of the last major cycle alone has to be right
    coarse = COARSE * gridder.accuracy if options.max_iterations else None
    residual = gridder.dirty(gridder.data.visibilities, coarse)
    model = np.zeros_like(residual)
    cycles = [_state(0, 0, residual, model)]
    if options.max_iterations == 0:
        return Deconvolution(model, residual, tuple(cycles))
    with as_file(mask) as mask_file:
        minor = _Minor(options, gridder.n_pixels, gridder.cell_rad, mask_file, mask)
        _descend(gridder, psf, (residual, model), minor, apparent, cycles, progress or _nobody)
    return Deconvolution(model, residual, tuple(cycles))


def _descend(
    gridder: Gridder,
    psf: NDArray[np.float32],
    images: tuple[NDArray[np.float32], NDArray[np.float32]],
    minor: _Minor,
    apparent: ApparentSky,
    cycles: list[MajorCycle],
    progress: Callable[[MajorCycle], None],
) -> None:
    """Major cycles; (residual, model) are changed in place, ``cycles`` grows."""
    residual, model = images
    observed, depth = gridder.data.visibilities, _first_depth(psf, minor.options.major_gain)
    radler, more, calls, done, resumed_at = minor.radler(psf, images, depth), True, 0, 0, np.inf
    try:
        while more and cycles[-1].number < minor.options.max_major_cycles and calls < _MOST_CALLS:
            before = model.copy(), residual.copy()
            with _silence():
                more = radler.perform(calls)
            calls += 1
            cycle = cycles[-1]
            # without a component it has made its mask, perhaps: the model is the same, and so is what it leaves
            if (total := done + int(radler.iteration_number)) > cycle.iterations:
                _drop_dust(model)
                difference = observed - apparent.predict(model, cycle.noise_jy)
                # the model was changed in place; the residual must be too, for radler holds on to both
                np.copyto(residual, gridder.dirty(difference, COARSE * gridder.accuracy))
                cycle = _state(cycle.number + 1, total, residual, model)
            if cycle is cycles[-1] or _is_progress(cycle, cycles[-1]):
                if cycle is not cycles[-1]:
                    apparent.learn(difference, cycle.noise_jy)
                    cycles.append(cycle)
                    progress(cycle)
                if more or not minor.is_unfinished(residual, cycle, resumed_at):
                    continue
                resumed_at = cycle.noise_jy
            else:
                np.copyto(model, before[0])
                np.copyto(residual, before[1])
                depth /= 2.0
                if depth < _SHALLOWEST:
                    _judge_rise(cycle, cycles)
                    break
            with _silence():  # it speaks when it goes, too
                done = cycles[-1].iterations
                radler, more, calls = minor.radler(psf, images, depth, done), True, 0
    finally:
        with _silence():
            del radler


def _first_depth(psf: NDArray[np.float32], most: float) -> float:
    """Fraction of the peak to remove in a major cycle: what remains stands above the sidelobes that are not subtracted.

    A component's sidelobes are known as far as the point spread function reaches, half of the image. What it is at its
    edge is what stays, beyond, of all that was removed: with natural weights of a cross a fifth of the peak.
    """
    edge = max(float(np.abs(side).max()) for side in (psf[:8], psf[-8:], psf[:, :8], psf[:, -8:]))
    return min(most, max(_SHALLOWEST, 1.0 - _ABOVE_EDGE * edge))


def _is_progress(cycle: MajorCycle, before: MajorCycle) -> bool:
    """False, too, if components on ridges have spread what the peak has lost."""
    return cycle.peak_jy < _RISE * before.peak_jy and cycle.noise_jy < _RISE * before.noise_jy


def _drop_dust(model: NDArray[np.float32]) -> None:
    """Zero the rounding errors that multiscale leaves on every pixel: each would be predicted."""
    model[np.abs(model) < _DUST * np.abs(model).max()] = 0.0


def _nobody(cycle: MajorCycle) -> None:
    """Nobody listens to the progress."""


def _judge_rise(cycle: MajorCycle, cycles: list[MajorCycle]) -> None:
    """Raise if the rise of the residual is more than the end of the road."""
    if not cycle.peak_jy < _DIVERGED * cycles[0].peak_jy:
        raise ImagingError(
            f"Deconvolution diverged in major cycle {cycle.number}",
            found=f"residual peak {cycle.peak_jy:.4g} Jy/beam after {cycles[-1].peak_jy:.4g}",
            expected="a residual that falls: look for bad calibration or interference",
        )


def _state(number: int, iterations: int, residual: NDArray[np.float32], model: NDArray[np.float32]) -> MajorCycle:
    return MajorCycle(
        number=number,
        iterations=iterations,
        peak_jy=float(np.abs(residual).max()),
        noise_jy=robust_rms(residual),
        model_jy=float(model.sum(dtype=np.float64)),
    )


@dataclass(frozen=True)
class _Minor:
    """What the minor cycles are made with."""

    options: ImageOptions
    n_pixels: int
    cell_rad: float
    mask_file: Path | None
    mask: NDArray[np.bool_] | None

    def is_unfinished(self, residual: NDArray[np.float32], cycle: MajorCycle, resumed_at_jy: float) -> bool:
        """Whether the residual stands above its threshold although radler ended.

        Radler reckons its thresholds from the noise before a cycle, with the sidelobes that the cycle takes away in
        it, and closes its mask at the first of them that it reaches: what is above five times the noise that is left
        may then be out of the mask for good. A run that was resumed at nearly this noise has done what it can.
        """
        options = self.options
        sigmas = options.mask_sigma if self.mask is None and options.mask != "none" else options.threshold_sigma
        least = max(sigmas * cycle.noise_jy, options.threshold_jy)
        peak = float(np.abs(residual if self.mask is None else residual[self.mask]).max(initial=0.0))
        settled = cycle.noise_jy >= _SETTLED * resumed_at_jy or cycle.iterations >= options.max_iterations
        return peak > least and not settled

    def radler(
        self,
        psf: NDArray[np.float32],
        images: tuple[NDArray[np.float32], NDArray[np.float32]],
        depth: float,
        done: int = 0,
    ) -> Any:
        """A radler on (residual, model) that removes the fraction ``depth`` of the peak in a major cycle.

        ``done`` minor iterations were made before.
        """
        import radler

        with _silence():
            return radler.Radler(self._settings(depth, done), psf, *images, self.cell_rad)

    def _settings(self, depth: float, done: int) -> Any:
        import radler

        options, settings = self.options, radler.Settings()
        settings.trimmed_image_width = settings.trimmed_image_height = self.n_pixels
        settings.pixel_scale.x = settings.pixel_scale.y = self.cell_rad
        settings.algorithm_type = radler.AlgorithmType.generic_clean
        # Clark's way, over the brightest pixels alone; hogbom subtracts the whole function for each component
        settings.use_sub_minor_optimization = options.deconvolver != "hogbom"
        if options.deconvolver == "multiscale":
            settings.algorithm_type = radler.AlgorithmType.multiscale
            cell_arcsec = np.degrees(self.cell_rad) * 3600.0
            settings.multiscale.scale_list = [scale / cell_arcsec for scale in options.scales_arcsec]
        settings.thread_count = options.threads
        settings.minor_iteration_count = max(options.max_iterations - done, 0)
        settings.major_iteration_count = options.max_major_cycles
        settings.minor_loop_gain = options.minor_gain
        settings.major_loop_gain = depth
        settings.auto_threshold_sigma = options.threshold_sigma
        settings.absolute_threshold = options.threshold_jy
        if self.mask_file is not None:
            settings.fits_mask = str(self.mask_file)
        elif options.mask != "none":
            settings.auto_mask_sigma = options.mask_sigma
        return settings


@contextmanager
def _silence() -> Iterator[None]:
    """Keep radler's messages, which it writes to the process's standard output and error, out of ours."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    sys.stderr.flush()
    libc.fflush(None)
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        yield
    finally:
        libc.fflush(None)
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        for handle in (*kept, nowhere):
            os.close(handle)
