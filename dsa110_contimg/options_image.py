"""Options of imaging and self-calibration, and the tiers of imaging."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    ModelWrapValidatorHandler,
    SerializationInfo,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from dsa110_contimg import telescope
from dsa110_contimg.options_base import Options

IMAGE_TIERS: Mapping[str, Mapping[str, object]] = {
    "development": {
        "threshold_sigma": 5.0,
        "mask_sigma": 6.0,
        "max_major_cycles": 3,
        "accuracy": 1e-3,
        "averaging_loss": 0.01,
    },
    "standard": {},
    "high_precision": {"averaging_loss": 0.001, "accuracy": 1e-5},
}
"""What the tiers of imaging have of their own, besides size and cell, which the data decide (`science.geometry`). The
tier ``standard`` is the defaults of `ImageOptions`."""
QUICK_PIXELS, QUICK_ITERATIONS = 512, 300
_LEAST_PIXELS = 128
_LEAST_TERMS = 2
"""Of mtmfs."""


def _none_or_enough(n_pixels: int) -> int:
    if 0 < n_pixels < _LEAST_PIXELS:
        raise ValueError(f"Input should be 0 or at least {_LEAST_PIXELS}")
    return n_pixels


def _threshold_by_unit(given: Mapping[str, Any]) -> dict[str, Any]:
    """A threshold with a unit, as operators write it (``0.5mJy``), is no multiple of the noise."""
    text = given.get("threshold_sigma")
    told = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(Jy|mJy|uJy)(/beam)?\s*", text) if isinstance(text, str) else None
    if told is None:
        return dict(given)
    scale = {"Jy": 1.0, "mJy": 1e-3, "uJy": 1e-6}[told[2]]
    rest = {name: value for name, value in given.items() if name != "threshold_sigma"}
    return {"threshold_jy": float(told[1]) * scale, **rest}


def _deconvolver_by_terms(given: Mapping[str, Any]) -> dict[str, Any]:
    """What CASA calls mtmfs is two things here: how components are found, and how many terms their spectra have."""
    if given.get("deconvolver") != "mtmfs":
        return dict(given)
    finds = "multiscale" if given.get("scales_arcsec") else "clean"
    return {"spectral_terms": _LEAST_TERMS, **given, "deconvolver": finds}


class ImageOptions(Options):
    """Imaging and deconvolution."""

    imager: Literal["auto", "native", "wsclean", "tclean"] = Field(
        "auto",
        description="Who deconvolves. native: ducc0 and radler in process; wsclean, tclean: these programs, on a "
        "Measurement Set written for them; auto: native, which is as good and faster (bench_image).",
    )

    n_pixels: Annotated[int, Field(ge=0, multiple_of=2), AfterValidator(_none_or_enough)] = Field(
        0,
        description="Image size on a side (pixels, even, at least 128); 0: what covers the primary beam down to a "
        "fifth, 2400 for DSA-110.",
    )
    cell_arcsec: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Pixel size (arcsec); 0: what the longest baseline asks for at the highest frequency, 6 for "
        "DSA-110.",
    )
    weighting: Literal["natural", "uniform", "briggs"] = Field("briggs", description="Imaging weights.")
    robust: Annotated[float, Field(ge=-2, le=2)] = Field(0.5, description="Briggs robustness.")
    max_iterations: Annotated[int, Field(ge=0)] = Field(
        50_000, description="Most minor iterations of the deconvolution; 0 makes a dirty image."
    )
    threshold_sigma: Annotated[float, Field(gt=0)] = Field(
        3.0, description="Final depth of the deconvolution inside the automatic mask (robust sigma)."
    )
    mask_sigma: Annotated[float, Field(gt=0)] = Field(
        5.0, description="Peaks above this (robust sigma) make the automatic mask."
    )
    minor_gain: Annotated[float, Field(gt=0, le=1)] = Field(0.1, description="Loop gain of a minor iteration.")
    major_gain: Annotated[float, Field(gt=0, le=1)] = Field(
        0.8, description="Fraction of the peak that one major cycle removes."
    )
    max_major_cycles: Annotated[int, Field(ge=1)] = Field(12, description="Most major cycles.")
    accuracy: Annotated[float, Field(gt=1e-7, lt=1e-1)] = Field(
        1e-4, description="Relative accuracy of gridding and degridding (ducc0 epsilon)."
    )
    averaging_loss: Annotated[float, Field(ge=0, lt=0.1)] = Field(
        0.0028,
        description="Largest loss of a source's peak at the half-power radius that averaging channels may cost; long "
        "baselines are averaged less than short ones, and none loses more than ten times as much.",
    )
    known_min_jy: Annotated[float, Field(ge=0)] = Field(
        0.002,
        description="Catalogue sources of at least this apparent flux (Jy) are predicted through the drifting beam and "
        "subtracted before deconvolution; those within the image are restored to it.",
    )
    pb_cut: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="The beam-corrected image is blank below this primary beam response."
    )
    threads: Annotated[int, Field(ge=1)] = Field(2, description="Threads of the gridder and the deconvolution.")
    beam_table: Path | None = Field(
        None,
        description="A measured primary beam (ECSV, made by dsa110 beam fit) for beam correction, smearing and known "
        "sources; None: the Airy pattern. Given to image or calibrate, it is the other's too.",
    )
    far_sigma: Annotated[float, Field(gt=0)] | None = Field(
        5.0,
        description="The Sun and the brightest radio sources, far outside the beam, are fitted in the visibilities and "
        "subtracted where they stand out by so many standard errors; None does not look for them.",
    )
    stokes: Literal["I", "XX", "YY"] = Field(
        "I", description="I: the mean of both hands, or what is not flagged of them; XX, YY: one hand alone."
    )
    uv_taper_arcsec: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Gaussian taper: FWHM of the beam that it alone would make (arcsec); 0 does not taper."
    )
    uvrange: str = Field(
        "", description="Baselines that are imaged, as CASA writes it (>1klambda, <300m, 0.1~2klambda); empty: all."
    )
    deconvolver: Literal["clean", "hogbom", "multiscale", "mtmfs"] = Field(
        "clean",
        description="clean: Clark's, minor iterations over the brightest pixels; hogbom: over all, slower; multiscale; "
        "mtmfs: CASA's name for two spectral_terms, with clean, or with multiscale if scales are given.",
    )
    spectral_terms: Annotated[int, Field(ge=1, le=4)] = Field(
        1,
        description="Terms of each component's spectrum, a polynomial in frequency. 1 cleans the band as one image; "
        "with more its parts are cleaned jointly, and the spectral index is a product (alpha, alpha_error).",
    )
    channel_groups: Annotated[int, Field(ge=2, le=48)] = Field(
        4,
        description="Shares of the band that spectral_terms are fitted to, by native and wsclean; tclean takes every "
        "channel by itself.",
    )
    index_max_error: Annotated[float, Field(gt=0)] = Field(
        0.5, description="The image of the spectral index is blank where noise makes it more wrong than this (1 sigma)."
    )
    scales_arcsec: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        (), description="Scales of multiscale (arcsec, 0 a point); none: chosen from the beam."
    )
    mask: str = Field(
        "auto",
        description="Where components may stand. auto: about peaks above mask_sigma; catalog: within a beam of "
        "catalogue sources of mask_min_jy; none: anywhere, which takes noise for sources; or a FITS image of the same "
        "grid, not 0 where they may. All but auto clean to threshold_sigma at once.",
    )
    mask_min_jy: Annotated[float, Field(ge=0)] = Field(
        0.01, description="Least apparent flux of a source that the mask catalog is made of (Jy)."
    )
    subtract_known: bool = Field(
        default=True, description="Subtract catalogue sources before deconvolution (known_min_jy) and restore them."
    )
    memory_gb: float | None = Field(
        None, gt=0, description="An image that needs more memory than this (GB) is refused; None: than is available."
    )
    subbands: Annotated[int, Field(ge=0, le=48)] = Field(
        0, description="Planes of a cube over frequency, equal shares of the band, beside the image; 0 makes none."
    )
    per_integration: bool = Field(
        default=False, description="Make a cube over time beside the image, with a plane for each integration."
    )
    tclean_gridder: Literal["standard", "wproject", "mosaic", "awproject"] = Field(
        "wproject",
        description="Gridder of the imager tclean. standard and mosaic leave w-terms out, and are refused where that "
        "matters, which is everywhere but in small images; CASA has no primary beam of DSA-110 for mosaic and "
        "awproject, and they are refused. The beam is corrected by ourselves with all of them.",
    )
    threshold_jy: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="Deconvolution never goes deeper than this (Jy/beam), whatever threshold_sigma says; 0 sets no "
        "such limit. IMG_THRESHOLD is this if it has a unit (0.5mJy), and threshold_sigma if it has none.",
    )
    tier: Literal["development", "standard", "high_precision"] = Field(
        "standard",
        description="standard: all defaults as told. development: coarser, shallower and less exact, for trying "
        "things (1800 pixels of 8 arcsec for DSA-110); its images are stamped NON-SCIENCE. high_precision: 4096 pixels "
        "of 4 arcsec, losses of averaging at most 0.001, gridding to 1e-5. What is given besides wins.",
    )
    quick: bool = Field(
        default=False,
        description=f"At most {QUICK_PIXELS} pixels and {QUICK_ITERATIONS} minor iterations, whatever else is said: a "
        "first look at the middle of the field.",
    )

    @model_validator(mode="wrap")
    @classmethod
    def _fill_tier(cls, given: Any, build: ModelWrapValidatorHandler[ImageOptions]) -> ImageOptions:
        """What the tier has of its own, under what was given; only the latter counts as set."""
        if not isinstance(given, Mapping):
            return build(given)
        given = _threshold_by_unit(given)
        filled = {**IMAGE_TIERS.get(str(given.get("tier", "standard")), {}), **_deconvolver_by_terms(given)}
        made = build(filled)
        if given.get("deconvolver") == "mtmfs" and made.spectral_terms < _LEAST_TERMS:
            raise ValueError(
                f"deconvolver mtmfs is for {_LEAST_TERMS} spectral_terms or more, not {made.spectral_terms}: "
                "with one, take clean or multiscale"
            )
        if made.quick:
            least = {"max_iterations": min(made.max_iterations, QUICK_ITERATIONS)}
            if made.n_pixels:  # a size that is derived is bounded where it is
                least["n_pixels"] = min(made.n_pixels, QUICK_PIXELS)
            made = build(filled | least)
        # so that a configured tier, or mtmfs, yields whole to another one that is given later
        object.__setattr__(made, "__pydantic_fields_set__", set(given))
        return made

    @model_serializer(mode="wrap")
    def _as_given(self, plain: SerializerFunctionWrapHandler, info: SerializationInfo) -> dict[str, Any]:
        """Where what was not given is left out, the terms of mtmfs are, and it has its name again."""
        told: dict[str, Any] = plain(self)
        if info.exclude_unset and "spectral_terms" not in self.model_fields_set and self.spectral_terms > 1:
            told["deconvolver"] = "mtmfs"
        return told


class SelfcalOptions(Options):
    """Self-calibration: gains solved on the image itself, off unless rounds are asked for."""

    phase_rounds: Annotated[int, Field(ge=0, le=10)] = Field(
        0, description="Most rounds in which phases are solved; the first that does not improve the image is the last."
    )
    amplitude_rounds: Annotated[int, Field(ge=0, le=10)] = Field(
        0, description="Most rounds in which complex gains are solved on top, if all rounds before improved the image."
    )
    phase_interval_s: Annotated[float, Field(gt=0)] = Field(
        telescope.INTEGRATION_S, description="Solution interval of the phases (s)."
    )
    amplitude_interval_s: Annotated[float, Field(gt=0)] = Field(
        telescope.GROUP_S, description="Solution interval of the complex gains (s): amplitudes are stable for a group."
    )
    min_snr: Annotated[float, Field(ge=0)] = Field(3.0, description="Solutions of less are flagged, and their data.")
    min_improvement: Annotated[float, Field(ge=0)] = Field(
        0.02,
        description="An image is better if its noise is not higher and its dynamic range higher by at least this "
        "fraction. Others are thrown away.",
    )

    @property
    def rounds(self) -> int:
        """All that may be tried."""
        return self.phase_rounds + self.amplitude_rounds
