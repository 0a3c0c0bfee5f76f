"""What any imager gives, and what each of them can do: one vocabulary for three programs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dsa110_contimg.science.restoring import Beam


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
    """

    model: NDArray[np.float32]
    residual: NDArray[np.float32]
    psf: NDArray[np.float32]
    beam: Beam
    restored: NDArray[np.float32] | None
    iterations: int
    major_cycles: int
    program: str
