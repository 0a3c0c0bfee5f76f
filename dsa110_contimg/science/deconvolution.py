"""Deconvolution: CLEAN by radler between griddings by ducc0, in one process.

Stopping follows WSClean: each major cycle cleans down to a fraction of the peak, then the model is subtracted from the
visibilities themselves; an automatic mask is made at one depth and cleaned to another. Both depths are in terms of the
noise that is left in the end: where the noise has fallen since they were reckoned, deconvolution goes on.

The band is one image, or it is several that are cleaned jointly: components are sought in their weighted mean, each is
taken from every one of them with the point spread function of that share of the band, and its spectrum is a polynomial
in frequency (Offringa & Smirnov 2017, MNRAS 471, 301; what CASA's mtmfs does with Taylor terms).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.apparent import ApparentSky
from dsa110_contimg.science.cleanmask import as_file
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.minor import Minor, padded_width, widened

MAD_TO_SIGMA = 1.482602218505602
_RISE = 1.2
"""A major cycle that leaves a residual peak above this times the one before has made things worse. It is undone and
repeated half as deep: the arms of the array make ridges in the point spread function that reach over the whole image,
of which CLEAN between griddings knows only the inner half."""
COARSE = 10.0
"""A residual may be gridded so many times less accurately than an image: the error is a fraction of what is gridded."""
COARSEST = 300.0
"""And so many times where it is cleaned further, and what is found subtracted from the visibilities."""
_SHALLOWEST = 0.15
"""Depth at which that ends: the limit of what CLEAN can do is reached (a thousandth of the brightest source, say)."""
_SETTLED = 0.98
"""A residual whose noise is above this times what it was when deconvolution was resumed has nothing left to find."""
_BY_CHANCE = 0.05
"""Probability of a peak of noise, somewhere among the pixels, that would be taken for an unfinished image."""
_ABOVE_EDGE = 2.0
_EVERY = 2
"""Of pixels: those of one beam, five or more of them, say the same of the noise."""
_DUST = 1e-6
_SMALL = 20.0
"""What cleaning takes from a residual nowhere by more than this times the noise is not gridded before it goes on: a
source so faint leaves a tenth of the noise where its sidelobes are other than the point spread function says."""
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


@dataclass(frozen=True)
class Share:
    """A share of the band, or all of it.

    Attributes
    ----------
    gridder : Gridder
        Of its visibilities alone; weights are those of the whole band.
    psf : (n, n)
        Its point spread function, peak 1.
    apparent : ApparentSky
        Predicts a model's visibilities.
    frequency_hz : weighted mean.
    """

    gridder: Gridder
    psf: NDArray[np.float32]
    apparent: ApparentSky
    frequency_hz: float = 0.0


@dataclass(frozen=True)
class JointDeconvolution:
    """Result of `clean_jointly`; stacks are ``[share, y, x]``.

    Attributes
    ----------
    models : Jy/pixel, of each share of the band.
    residuals : Jy/beam.
    cycles : the history, of the weighted mean.
    """

    models: NDArray[np.float32]
    residuals: NDArray[np.float32]
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
        Called after every major cycle; once, with the dirty image's, where nothing was found.
    mask : (n, n) ``[y, x]``, optional
        Components may stand where it is True alone (`cleanmask`), and are taken down to ``threshold_sigma`` at once.
        Without it the automatic mask is made, unless ``options.mask`` is ``none``.

    Raises
    ------
    ImagingError
        The residual cannot be kept below a fifth of the dirty peak, or is not finite.
    """
    joint = clean_jointly((Share(gridder, psf, apparent),), options, progress, mask)
    return Deconvolution(joint.models[0], joint.residuals[0], joint.cycles)


def clean_jointly(
    shares: Sequence[Share],
    options: ImageOptions,
    progress: Callable[[MajorCycle], None] | None = None,
    mask: NDArray[np.bool_] | None = None,
) -> JointDeconvolution:
    """CLEAN several shares of the band at once: one component, one place, a spectrum of ``options.spectral_terms``.

    Parameters
    ----------
    shares : sequence of Share
        Ascending in frequency, on one grid; with one, this is `clean`.
    options, progress, mask
        As of `clean`; peaks and thresholds are those of the weighted mean.

    Raises
    ------
    ImagingError
        As of `clean`.
    """
    for share in shares:
        data, weights = share.gridder.data, share.gridder.weights
        bad = int(np.count_nonzero(~np.isfinite(data.visibilities) & (weights > 0.0)))
        if bad:  # the gridder takes NaN for nothing, without a word
            raise ImagingError("Visibilities with weight are not finite", found=f"{bad} of them", expected="none")
    # of what is deconvolved, the residual of the last major cycle alone has to be right
    griddings = [(share.gridder, share.gridder.data.visibilities) for share in shares]
    dirty = _stack([_coarse(*one) if options.max_iterations else one[0].dirty(one[1]) for one in griddings])
    sums = np.array([share.gridder.weight_sum for share in shares])
    if not options.max_iterations:
        nothing = np.zeros_like(dirty)
        return JointDeconvolution(nothing, dirty, (_state(0, 0, band_mean(dirty, sums), nothing),))
    wide = None if mask is None else widened(mask, padded_width(len(mask)))
    with as_file(wide) as mask_file:
        bands = np.array([share.frequency_hz for share in shares]), sums
        cell = shares[0].gridder.cell_rad
        minor = Minor(_stack([share.psf for share in shares]), dirty, options, cell, mask_file, bands)
        descent = _Descent(shares, minor, options, mask)
        descent.run(progress or _nobody)
        descent.refine()
    cycles = tuple(descent.cycles)
    if progress and len(cycles) == 1:
        progress(cycles[0])
    return JointDeconvolution(minor.models.copy(), minor.residuals.copy(), cycles)


def _coarse(gridder: Gridder, visibilities: NDArray[np.complex64]) -> NDArray[np.float32]:
    return gridder.quick_dirty(visibilities, gridder.coarser(COARSEST))


def band_mean(images: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weighted mean (n, n) of images ``[share, y, x]``; of one alone, that itself and no copy."""
    if len(images) == 1:
        return np.asarray(images[0])
    return np.asarray(np.tensordot((weights / weights.sum()).astype(np.float32), images, axes=1), np.float32)


def _stack(images: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return images[0][None] if len(images) == 1 else np.stack(images)


def _first_depth(psf: NDArray[np.float32], most: float) -> float:
    """Fraction of the peak to remove in a major cycle: what remains stands above the sidelobes that are not subtracted.

    A component's sidelobes are known as far as the point spread function reaches, half of the image. What it is at its
    edge is what stays, beyond, of all that was removed: with natural weights of a cross a fifth of the peak.
    """
    return min(most, max(_SHALLOWEST, 1.0 - _ABOVE_EDGE * _edge(psf)))


def _edge(psf: NDArray[np.float32]) -> float:
    """Largest sidelobe at its edge."""
    return max(float(np.abs(side).max()) for side in (psf[:8], psf[-8:], psf[:, :8], psf[:, -8:]))


def _is_progress(cycle: MajorCycle, before: MajorCycle) -> bool:
    """False, too, if components on ridges have spread what the peak has lost."""
    return cycle.peak_jy < _RISE * before.peak_jy and cycle.noise_jy < _RISE * before.noise_jy


def _peak(image: NDArray[np.float32]) -> float:
    """Largest absolute value; NaN where there is one."""
    return float(max(image.max(), -image.min()))


def _most_changed(now: NDArray[np.float32], before: NDArray[np.float32]) -> float:
    """Largest absolute difference of two images (n, n), row by row: what is small stays near the processor."""
    return float(max(np.abs(one - other).max() for one, other in zip(now, before, strict=True)))


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
        peak_jy=_peak(residual),
        noise_jy=robust_rms(residual[::_EVERY, ::_EVERY]),
        model_jy=float(model.sum(dtype=np.float64)),
    )


class _Descent:
    """Major cycles over ``shares`` until nothing is left to find; ``cycles`` grows."""

    def __init__(
        self, shares: Sequence[Share], minor: Minor, options: ImageOptions, mask: NDArray[np.bool_] | None
    ) -> None:
        self.shares, self.minor, self.options, self.mask = shares, minor, options, mask
        self.sums = np.array([share.gridder.weight_sum for share in shares])
        psf = band_mean(_stack([share.psf for share in shares]), self.sums)
        self.depth = _first_depth(psf, options.major_gain)
        self.small = 0.0 if options.deconvolver == "multiscale" else min(_SMALL, 1.0 / max(_edge(psf), 1e-3))
        self.cycles = [self.state(0, 0)]
        self.resumed_at_jy = np.inf
        self.keep(is_coarse=True)

    def keep(self, *, is_coarse: bool) -> None:
        """Images as they are now, from visibilities: what to go back to."""
        self.models, self.residuals, self.is_coarse = self.minor.models.copy(), self.minor.residuals.copy(), is_coarse

    def run(self, progress: Callable[[MajorCycle], None]) -> None:
        """Clean and grid in turn; ``progress`` is told of every cycle."""
        self.minor.begin(self.depth)
        try:
            while (last := self.cycles[-1]).number < self.options.max_major_cycles:
                is_all = self.clean_on()
                if self.minor.iterations == last.iterations:
                    return
                is_coarse = not is_all and last.number + 1 < self.options.max_major_cycles
                differences = self.subtract(is_coarse=is_coarse)
                cycle = self.state(last.number + 1, self.minor.iterations)
                if not _is_progress(cycle, last):
                    if not self.undo(cycle):
                        return
                    continue
                self.keep(is_coarse=is_coarse)
                self.cycles.append(cycle)
                progress(cycle)
                if is_all and not self.is_unfinished():
                    return
                if is_all:
                    self.resume()
                self.learn(differences)
        finally:
            self.minor.end()

    def refine(self) -> None:
        """Grid the residual as it has to be in the end, where it was gridded to be cleaned further."""
        if self.is_coarse:
            self.subtract(is_coarse=False)
            last = self.cycles[-1]
            self.cycles[-1] = self.state(last.number, last.iterations)

    def clean_on(self) -> bool:
        """Minor cycles until what they removed is worth a gridding; whether there is nothing more to find."""
        while True:
            more = self.minor.perform()
            if not self.is_small():
                return not more
            if not more:
                if not self.is_unfinished():
                    return True
                self.resume()

    def resume(self) -> None:
        """Make another mask, and thresholds of the noise as it is now."""
        self.resumed_at_jy = self.cycles[-1].noise_jy
        self.minor.begin(self.depth, self.minor.iterations)

    def undo(self, cycle: MajorCycle) -> bool:
        """Go back to before a cycle that made things worse, to clean half as deep; False if that ends it."""
        np.copyto(self.minor.models, self.models)
        np.copyto(self.minor.residuals, self.residuals)
        self.depth /= 2.0
        if self.depth < _SHALLOWEST:
            _judge_rise(cycle, self.cycles)
            return False
        self.minor.begin(self.depth, self.cycles[-1].iterations)
        return True

    def is_small(self) -> bool:
        """Whether cleaning has changed the residuals so little that it may go on from what it made of them itself.

        Sidelobes beyond the reach of the point spread function, which it does not know, are then below the noise. A
        multiscale component takes little from every pixel, and much in all.
        """
        bounds = self.small * self.noises()
        pairs = zip(self.minor.residuals, self.residuals, bounds, strict=True)
        return all(_most_changed(now, before) <= bound for now, before, bound in pairs)

    def subtract(self, *, is_coarse: bool) -> list[NDArray[np.complex64]]:
        """Residual visibilities of the models; their images are put into the residuals."""
        if self.options.deconvolver == "multiscale":
            _drop_dust(self.minor.models)
        differences = []
        each = zip(self.shares, self.minor.residuals, self.minor.models, self.noises(), strict=True)
        for share, residual, model, noise in each:
            gridder = share.gridder
            difference = share.apparent.predict(model, noise)
            np.subtract(gridder.data.visibilities, difference, out=difference)
            fine = gridder.coarser(COARSE)
            np.copyto(residual, _coarse(gridder, difference) if is_coarse else gridder.dirty(difference, fine))
            differences.append(difference)
        return differences

    def state(self, number: int, iterations: int) -> MajorCycle:
        residual, model = (band_mean(images, self.sums) for images in (self.minor.residuals, self.minor.models))
        return _state(number, iterations, residual, model)

    def learn(self, differences: list[NDArray[np.complex64]]) -> None:
        """Let each share learn the spectra of its sources from what is left of its visibilities."""
        for share, difference, noise in zip(self.shares, differences, self.noises(), strict=True):
            share.apparent.learn(difference, noise)

    def is_unfinished(self) -> bool:
        """Whether the residual (the mean of the shares') stands above threshold and noise although radler ended.

        Radler reckons its thresholds from the noise before a cycle, with the sidelobes that the cycle takes away in
        it, and closes its mask at the first of them that it reaches: what is above five times the noise that is left
        may then be out of the mask for good. A run that was resumed at nearly this noise has done what it can.
        """
        options, cycle = self.options, self.cycles[-1]
        sigmas = options.mask_sigma if self.mask is None and options.mask != "none" else options.threshold_sigma
        residual = band_mean(self.minor.residuals, self.sums)
        within = residual if self.mask is None else residual[self.mask]
        least = max(max(sigmas, float(norm.isf(_BY_CHANCE / 2 / within.size))) * cycle.noise_jy, options.threshold_jy)
        peak = _peak(within)
        settled = cycle.noise_jy >= _SETTLED * self.resumed_at_jy or self.minor.iterations >= options.max_iterations
        return peak > least and not settled

    def noises(self) -> NDArray[np.float64]:
        """Noise of each share, from that of the mean."""
        return np.asarray(self.cycles[-1].noise_jy * np.sqrt(self.sums.sum() / self.sums))
