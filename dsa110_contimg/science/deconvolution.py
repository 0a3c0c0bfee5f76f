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
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.apparent import ApparentSky
from dsa110_contimg.science.cleanmask import as_file
from dsa110_contimg.science.gridding import Gridder
from dsa110_contimg.science.silence import silence

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
    coarse = COARSE if options.max_iterations else 1.0
    residuals = _stack([s.gridder.dirty(s.gridder.data.visibilities, coarse * s.gridder.accuracy) for s in shares])
    models = np.zeros_like(residuals)
    sums = np.array([share.gridder.weight_sum for share in shares])
    cycles = [_state(0, 0, band_mean(residuals, sums), band_mean(models, sums))]
    if options.max_iterations:
        with as_file(mask) as mask_file:
            minor = _Minor(options, tuple(shares), _stack([share.psf for share in shares]), sums, mask_file, mask)
            _descend(minor, (residuals, models), cycles, progress or _nobody)
        if progress and len(cycles) == 1:
            progress(cycles[0])
    return JointDeconvolution(models, residuals, tuple(cycles))


def band_mean(images: NDArray[np.float32], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Weighted mean (n, n) of images ``[share, y, x]``; of one alone, that itself and no copy."""
    if len(images) == 1:
        return np.asarray(images[0])
    return np.asarray(np.tensordot((weights / weights.sum()).astype(np.float32), images, axes=1), np.float32)


def _stack(images: list[NDArray[np.float32]]) -> NDArray[np.float32]:
    return images[0][None] if len(images) == 1 else np.stack(images)


def _descend(
    minor: _Minor,
    images: tuple[NDArray[np.float32], NDArray[np.float32]],
    cycles: list[MajorCycle],
    progress: Callable[[MajorCycle], None],
) -> None:
    """Major cycles; (residuals, models) are changed in place, ``cycles`` grows."""
    residuals, models = images
    depth = _first_depth(band_mean(minor.psfs, minor.sums), minor.options.major_gain)
    radler, more, calls, done, resumed_at = minor.radler(images, depth), True, 0, 0, np.inf
    try:
        while more and cycles[-1].number < minor.options.max_major_cycles and calls < _MOST_CALLS:
            before = models.copy(), residuals.copy()
            with silence():
                more = radler.perform(calls)
            calls += 1
            # without a component it has made its mask, perhaps: the model is the same, and so is what it leaves
            cycle = cycles[-1]
            if (total := done + int(radler.iteration_number)) > cycle.iterations:
                _drop_dust(models)
                differences = minor.subtract(images, cycle.noise_jy)
                means = band_mean(residuals, minor.sums), band_mean(models, minor.sums)
                cycle = _state(cycle.number + 1, total, *means)
            if cycle is cycles[-1] or _is_progress(cycle, cycles[-1]):
                if cycle is not cycles[-1]:
                    minor.learn(differences, cycle.noise_jy)
                    cycles.append(cycle)
                    progress(cycle)
                if more or not minor.is_unfinished(residuals, cycle, resumed_at):
                    continue
                resumed_at = cycle.noise_jy
            else:
                np.copyto(models, before[0])
                np.copyto(residuals, before[1])
                depth /= 2.0
                if depth < _SHALLOWEST:
                    _judge_rise(cycle, cycles)
                    break
            with silence():  # it speaks when it goes, too
                done = cycles[-1].iterations
                radler, more, calls = minor.radler(images, depth, done), True, 0
    finally:
        with silence():
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
    """What the minor cycles are made with: of each share its point spread function and its sum of weights."""

    options: ImageOptions
    shares: tuple[Share, ...]
    psfs: NDArray[np.float32]
    sums: NDArray[np.float64]
    mask_file: Path | None
    mask: NDArray[np.bool_] | None

    def is_unfinished(self, residuals: NDArray[np.float32], cycle: MajorCycle, resumed_at_jy: float) -> bool:
        """Whether the residual (the mean of the shares') stands above its threshold although radler ended.

        Radler reckons its thresholds from the noise before a cycle, with the sidelobes that the cycle takes away in
        it, and closes its mask at the first of them that it reaches: what is above five times the noise that is left
        may then be out of the mask for good. A run that was resumed at nearly this noise has done what it can.
        """
        options = self.options
        sigmas = options.mask_sigma if self.mask is None and options.mask != "none" else options.threshold_sigma
        least = max(sigmas * cycle.noise_jy, options.threshold_jy)
        residual = band_mean(residuals, self.sums)
        peak = float(np.abs(residual if self.mask is None else residual[self.mask]).max(initial=0.0))
        settled = cycle.noise_jy >= _SETTLED * resumed_at_jy or cycle.iterations >= options.max_iterations
        return peak > least and not settled

    def noises(self, noise_jy: float) -> NDArray[np.float64]:
        """Noise of each share, from that of the mean."""
        return np.asarray(noise_jy * np.sqrt(self.sums.sum() / self.sums))

    def subtract(
        self, images: tuple[NDArray[np.float32], NDArray[np.float32]], noise_jy: float
    ) -> list[NDArray[np.complex64]]:
        """Residual visibilities of the models; their images are put into the residuals."""
        residuals, models = images
        differences = []
        for share, residual, model, noise in zip(self.shares, residuals, models, self.noises(noise_jy), strict=True):
            gridder = share.gridder
            difference = gridder.data.visibilities - share.apparent.predict(model, noise)
            # the model was changed in place; the residual must be too, for radler holds on to both
            np.copyto(residual, gridder.dirty(difference, COARSE * gridder.accuracy))
            differences.append(difference)
        return differences

    def learn(self, differences: list[NDArray[np.complex64]], noise_jy: float) -> None:
        """Let each share learn the spectra of its sources from what is left of its visibilities."""
        for share, difference, noise in zip(self.shares, differences, self.noises(noise_jy), strict=True):
            share.apparent.learn(difference, noise)

    def radler(self, images: tuple[NDArray[np.float32], NDArray[np.float32]], depth: float, done: int = 0) -> Any:
        """A radler on (residuals, models) that removes the fraction ``depth`` of the peak in a major cycle.

        ``done`` minor iterations were made before.
        """
        import radler

        cell = self.shares[0].gridder.cell_rad
        with silence():
            if len(self.shares) == 1:
                return radler.Radler(self._settings(depth, done), self.psfs[0], images[0][0], images[1][0], cell)
            frequencies = np.array([share.frequency_hz for share in self.shares])
            # radler takes the middle of a band for its frequency
            bands = np.stack([frequencies, frequencies], axis=-1)
            relative = self.sums / self.sums.sum()
            return radler.Radler(
                self._settings(depth, done), self.psfs, *images, cell, len(self.shares), bands, relative
            )

    def _settings(self, depth: float, done: int) -> Any:
        import radler

        options, settings = self.options, radler.Settings()
        gridder = self.shares[0].gridder
        settings.trimmed_image_width = settings.trimmed_image_height = gridder.n_pixels
        settings.pixel_scale.x = settings.pixel_scale.y = gridder.cell_rad
        settings.algorithm_type = radler.AlgorithmType.generic_clean
        # Clark's way, over the brightest pixels alone; hogbom subtracts the whole function for each component
        settings.use_sub_minor_optimization = options.deconvolver != "hogbom"
        if options.deconvolver == "multiscale":
            settings.algorithm_type = radler.AlgorithmType.multiscale
            cell_arcsec = np.degrees(gridder.cell_rad) * 3600.0
            settings.multiscale.scale_list = [scale / cell_arcsec for scale in options.scales_arcsec]
        settings.thread_count = options.threads
        settings.minor_iteration_count = max(options.max_iterations - done, 0)
        # it counts calls without a component, too, and cleans less in the last: we count ourselves
        settings.major_iteration_count = _MOST_CALLS
        settings.minor_loop_gain = options.minor_gain
        settings.major_loop_gain = depth
        settings.auto_threshold_sigma = options.threshold_sigma
        settings.absolute_threshold = options.threshold_jy
        if len(self.shares) > 1:
            settings.channels_out = len(self.shares)
            # a logarithmic one does not end where a component is faint in some share (50,000 iterations for 1300)
            settings.spectral_fitting.mode = radler.SpectralFittingMode.polynomial
            settings.spectral_fitting.terms = options.spectral_terms
        if self.mask_file is not None:
            settings.fits_mask = str(self.mask_file)
        elif options.mask != "none":
            settings.auto_mask_sigma = options.mask_sigma
        return settings
