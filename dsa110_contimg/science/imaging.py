"""What any imager gives, and what each of them can do: one vocabulary for three programs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.exceptions import ImagingError
from dsa110_contimg.options import ImageOptions
from dsa110_contimg.science.casasyntax import UVRange, parse_uvrange
from dsa110_contimg.science.restoring import Beam

_PLANES = 17
"""Planes of float32 that are in memory at once while the native imager deconvolves: the images and their copies, the
padded grid of the gridder, what radler works on. Measured from 512 to 4096 pixels."""
_PLANES_MULTISCALE = 42
"""With the planes of every scale."""
_PLANES_SHARE, _PLANES_SHARE_MULTISCALE = 9, 19
"""Of each further share of the band: model, residual and point spread function, their copies, and radler's; and what
multiscale convolves of them. Measured with 2 to 8 shares of 1024 and 2048 pixels, to 4 %."""
_BYTES_PER_SAMPLE = 40
"""Visibility, weights, prediction, residual and the gridder's sorting."""
_BYTES_PER_SAMPLE_SHARES = 15
"""More where the band is divided: each share has its own copy of visibilities and weights."""
_PROGRAM_BYTES = 350e6
"""Python and the libraries, before there are data."""


@dataclass(frozen=True)
class Cleaned:
    """A deconvolved image; planes are ``[y, x]``, y north and x west, phase centre at pixel n // 2.

    Attributes
    ----------
    model : (n, n) Jy/pixel.
    residual : (n, n) Jy/beam.
    psf : (n, n), peak 1.
    beam : restoring beam, in angles as the pixels have them (apparent, not corrected for aberration).
    restored : (n, n) Jy/beam, or None where the imager leaves it to be made of model, residual and beam.
    iterations, major_cycles : what deconvolution took.
    program : name and version of what made it.
    slope : first-order terms of the spectrum (`spectral`), model (Jy/pixel) and residual (Jy/beam); None where
        components have the same flux at all frequencies.
    """

    model: NDArray[np.float32]
    residual: NDArray[np.float32]
    psf: NDArray[np.float32]
    beam: Beam
    restored: NDArray[np.float32] | None
    iterations: int
    major_cycles: int
    program: str
    slope: tuple[NDArray[np.float32], NDArray[np.float32]] | None = None


def memory_estimate(n_pixels: int, n_samples: int, *, multiscale: bool = False, shares: int = 1) -> int:
    """Bytes that the native imager takes at its peak, true to 30 % (`tests/science/test_imaging.py`).

    Parameters
    ----------
    n_pixels : int
        On a side.
    n_samples : int
        Visibilities after averaging (`averaging.ImagingData`); 0 before that is known. Reading takes about 1 GB of its
        own, before.
    multiscale : bool
    shares : int
        Of the band, cleaned jointly (``channel_groups``).
    """
    first, further = (_PLANES_MULTISCALE, _PLANES_SHARE_MULTISCALE) if multiscale else (_PLANES, _PLANES_SHARE)
    planes = first + further * (shares - 1)
    per_sample = _BYTES_PER_SAMPLE + (_BYTES_PER_SAMPLE_SHARES if shares > 1 else 0)
    return int(_PROGRAM_BYTES + 4 * planes * n_pixels**2 + per_sample * n_samples)


def require_memory(needed: int, available: int | None, limit_gb: float | None = None) -> None:
    """Refuse an image before it is begun if it needs more memory than there is.

    Parameters
    ----------
    needed : int
        `memory_estimate`.
    available : int, optional
        What the machine has to give (`io.files.available_memory`); None if it does not say.
    limit_gb : float, optional
        A limit of one's own, besides (GB of 1e9 bytes).

    Raises
    ------
    ImagingError
    """
    limits = [value for value in (available, None if limit_gb is None else limit_gb * 1e9) if value is not None]
    if limits and needed > min(limits):
        raise ImagingError(
            "The image needs more memory than there is",
            found=f"{needed / 1e9:.1f} GB by estimate",
            expected=f"at most {min(limits) / 1e9:.1f} GB: fewer pixels, or a larger averaging_loss",
        )


def uv_limits_lambda(options: ImageOptions) -> tuple[float, float]:
    """Shortest and longest projected baseline (wavelengths) that ``uvrange`` sets; (0, inf) where in metres."""
    limits = parse_uvrange(options.uvrange)
    return (limits.least, limits.most) if limits.in_wavelengths else (0.0, float("inf"))


def require(options: ImageOptions, imager: str) -> None:
    """Refuse options that an imager cannot do, before it is started.

    Of what the imagers outside this package cannot do: WSClean cuts baselines by wavelengths alone, which no number of
    metres is over a band; tclean has no setting for its memory; sources far outside the image are fitted in data that
    are averaged here, and the programs read their own.

    Parameters
    ----------
    options : ImageOptions
    imager : native, wsclean or tclean

    Raises
    ------
    ImagingError
        It names the imager and the option; or there are more spectral terms than shares of the band.
    """
    limits = parse_uvrange(options.uvrange)
    # on by default, so that only who asks for it is refused
    far = options.far_sigma is not None and "far_sigma" in options.model_fields_set
    metres = limits != UVRange() and not limits.in_wavelengths
    cannot = {
        "wsclean": {"uvrange in metres": metres, "far_sigma": far},
        "tclean": {"memory_gb": options.memory_gb is not None, "far_sigma": far},
    }
    for name, asked in cannot.get(imager, {}).items():
        if asked:
            raise ImagingError(f"The imager {imager} does not do {name}", expected="the imager native, or without it")
    if options.spectral_terms > options.channel_groups and imager != "tclean":
        raise ImagingError(
            "A spectrum has more terms than the band has shares",
            found=f"spectral_terms {options.spectral_terms}, channel_groups {options.channel_groups}",
            expected="at least as many channel_groups",
        )
