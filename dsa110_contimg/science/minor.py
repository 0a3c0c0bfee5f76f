"""Minor cycles: components are sought by radler in images that are in memory, between griddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.fft import next_fast_len
from scipy.stats import norm

from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.silence import silence

MOST_CALLS = 100
"""Times that radler is called at most: it may come back without a component, once its mask is made."""
_PADDED = 1.1
"""radler's transforms are wider than its images by this."""
_WIDEST = 1.03


class Minor:
    """A radler and the images it works on, in place.

    Its transforms are 1.1 times as wide as its images, and take twice as long where that has a large prime factor (4506
    = 2 x 3 x 751, of 4096 pixels). So it is given images with a margin of zeros, where nothing is found.

    Parameters
    ----------
    psfs : (share, n, n)
        Point spread functions of the shares of the band, peak 1.
    residuals : (share, n, n)
        Dirty images (Jy/beam).
    options : ImageOptions
    cell_rad : float
    mask_file : Path, optional
        FITS file of a mask as wide as `padded_width` says.
    bands : (frequencies (Hz), weights), each (share,)

    Attributes
    ----------
    residuals, models : (share, n, n) ``[share, y, x]``, float32
        Views of what radler changes: Jy/beam and Jy/pixel.
    """

    def __init__(
        self,
        psfs: NDArray[np.float32],
        residuals: NDArray[np.float32],
        options: ImageOptions,
        cell_rad: float,
        mask_file: Path | None,
        bands: tuple[NDArray[np.float64], NDArray[np.float64]],
    ) -> None:
        self._options, self._cell, self._mask_file, self._bands = options, cell_rad, mask_file, bands
        n = residuals.shape[-1]
        self._width = padded_width(n)
        self._psfs, self._residuals = (widened(images, self._width) for images in (psfs, residuals))
        self._models = np.zeros_like(self._residuals)
        inner = (slice(None), *_inner(n, self._width))
        self.residuals, self.models = self._residuals[inner], self._models[inner]
        self._radler: Any = None
        self._calls, self._done = 0, 0

    def begin(self, depth: float, done: int = 0) -> None:
        """From the images as they are, without a mask of its own yet.

        Parameters
        ----------
        depth : float
            Fraction of the peak to remove in a call.
        done : int
            Minor iterations made before.
        """
        import radler

        self.end()
        with silence():
            settings = self._settings(depth, done)
            if len(self._psfs) == 1:
                planes = self._psfs[0], self._residuals[0], self._models[0]
                self._radler = radler.Radler(settings, *planes, self._cell)
            else:
                frequencies, weights = self._bands
                # radler takes the middle of a band for its frequency
                edges = np.stack([frequencies, frequencies], axis=-1)
                planes = self._psfs, self._residuals, self._models
                share = weights / weights.sum()
                self._radler = radler.Radler(settings, *planes, self._cell, len(frequencies), edges, share)
        self._calls, self._done = 0, done

    def perform(self) -> bool:
        """Clean once; whether there is more to do at this noise."""
        with silence():
            more = bool(self._radler.perform(self._calls))
        self._calls += 1
        for images in (self._residuals, self._models):
            _clear_margin(images, self.residuals.shape[-1])
        return more and self._calls < MOST_CALLS

    def end(self) -> None:
        with silence():  # it speaks when it goes, too
            self._radler = None

    @property
    def iterations(self) -> int:
        """Minor iterations so far."""
        return self._done + int(self._radler.iteration_number)

    def _settings(self, depth: float, done: int) -> Any:
        import radler

        options, settings = self._options, radler.Settings()
        settings.trimmed_image_width = settings.trimmed_image_height = self._width
        settings.border_ratio = (self._width - self.residuals.shape[-1]) / 2 / self._width
        settings.pixel_scale.x = settings.pixel_scale.y = self._cell
        settings.algorithm_type = radler.AlgorithmType.generic_clean
        # Clark's way, over the brightest pixels alone; hogbom subtracts the whole function for each component
        settings.use_sub_minor_optimization = options.deconvolver != "hogbom"
        if options.deconvolver == "multiscale":
            settings.algorithm_type = radler.AlgorithmType.multiscale
            cell_arcsec = np.degrees(self._cell) * 3600.0
            settings.multiscale.scale_list = [scale / cell_arcsec for scale in options.scales_arcsec]
        settings.thread_count = options.threads
        settings.minor_iteration_count = max(options.max_iterations - done, 0)
        # it counts calls without a component, too, and cleans less in the last: we count ourselves
        settings.major_iteration_count = MOST_CALLS
        settings.minor_loop_gain = options.minor_gain
        settings.major_loop_gain = depth
        noise = _noise_with_margin(self.residuals.shape[-1], self._width)
        settings.auto_threshold_sigma = options.threshold_sigma / noise
        settings.absolute_threshold = options.threshold_jy
        if len(self._psfs) > 1:
            settings.channels_out = len(self._psfs)
            # a logarithmic one does not end where a component is faint in some share (50,000 iterations for 1300)
            settings.spectral_fitting.mode = radler.SpectralFittingMode.polynomial
            settings.spectral_fitting.terms = options.spectral_terms
        if self._mask_file is not None:
            settings.fits_mask = str(self._mask_file)
        elif options.mask != "none":
            settings.auto_mask_sigma = options.mask_sigma / noise
        return settings


def padded_width(n_pixels: int) -> int:
    """Width from ``n_pixels`` on of which radler's transforms are fast; ``n_pixels`` where none is near."""
    for width in range(n_pixels, int(_WIDEST * n_pixels) + 1, 2):
        transform = int(np.ceil(_PADDED * width))
        transform += transform % 2
        if next_fast_len(transform) == transform:
            return width
    return n_pixels


def widened(images: NDArray[Any], width: int) -> NDArray[Any]:
    """Images ``[..., y, x]`` within a margin of zeros, the central pixel (n // 2) central again."""
    n = images.shape[-1]
    if width == n:
        return images
    out = np.zeros((*images.shape[:-2], width, width), images.dtype)
    out[(..., *_inner(n, width))] = images
    return out


def _inner(n: int, width: int) -> tuple[slice, slice]:
    first = width // 2 - n // 2
    return slice(first, first + n), slice(first, first + n)


def _clear_margin(images: NDArray[np.float32], n: int) -> None:
    """Zero again what sidelobes of components have put there."""
    first = images.shape[-1] // 2 - n // 2
    if first:
        images[..., :first, :] = images[..., -first:, :] = 0.0
        images[..., :first] = images[..., -first:] = 0.0


def _noise_with_margin(n: int, width: int) -> float:
    """By what zeros in the margin lower the median absolute deviation of Gaussian noise, that radler reckons with.

    Of all pixels the share ``empty`` is zero; half of all are below the median of absolute values.
    """
    empty = 1.0 - (n / width) ** 2
    return float(norm.ppf(0.5 + 0.5 * (0.5 - empty) / (1.0 - empty)) / norm.ppf(0.75))
