"""One model per stage: every default, bound and unit of the pipeline in one place.

The descriptions are the manual: the command line help and ``docs/reference`` are made from them.
`digest` is the part of a checkpoint's key that says "the same options".
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from dsa110_contimg import telescope


class Options(BaseModel):
    """Base: frozen, no unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """Short hash of all values that can change a result, equal for equal options."""
        only_how = {"threads", "workers", "staging"}  # these change how long it takes, never what comes out
        return hashlib.sha256(self.model_dump_json(exclude=only_how).encode()).hexdigest()[:16]


class ConvertOptions(Options):
    """Subband files to a Measurement Set."""

    min_subbands: Annotated[int, Field(ge=1, le=16)] = Field(
        12, description="Fewest subbands that make a group; the missing ones are written as flagged data."
    )
    writer: Literal["auto", "direct", "pyuvdata", "casa"] = Field(
        "auto",
        description="What writes the Measurement Set. direct: streamed, one integration after another; pyuvdata: "
        "UVData.write_ms, the reference; casa: UVFITS read by importuvfits, slow and independent. auto takes direct.",
    )
    phase_center: Literal["midpoint", "meridian"] = Field(
        "midpoint",
        description="midpoint: one FIELD, the meridian at mid-group; meridian: a FIELD for each integration.",
    )
    spectral_windows: Literal[1, 16] = Field(
        1, description="One spectral window of 768 channels, or one for each subband; channels ascend in both."
    )
    columns: Literal["data", "imaging"] = Field(
        "data", description="data: DATA alone; imaging: MODEL_DATA and CORRECTED_DATA are allocated too, as zeros."
    )
    weight_spectrum: bool = Field(
        default=True, description="Write WEIGHT_SPECTRUM, a weight for each channel; without it, WEIGHT alone."
    )
    staging: Literal["beside", "tmpfs"] = Field(
        "beside",
        description="Where it is written before it takes its name. beside: next to it; tmpfs: in shared memory if it "
        "fits there twice, else in the scratch directory, and copied.",
    )
    workers: Annotated[int, Field(ge=1, le=64)] = Field(2, description="Threads of the direct writer.")
    smoke_test: bool = Field(
        default=True,
        description="After writing, let CASA open the Measurement Set and solve a gain on one integration of it.",
    )


class FlagOptions(Options):
    """Flagging of raw visibilities."""

    dead_antenna_ratio: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="An antenna whose autocorrelation is below this fraction of the median is dead."
    )
    spectrogram_sigma: Annotated[float, Field(gt=3)] = Field(
        6.0, description="Threshold on the baseline-averaged amplitude of one time and channel (robust sigma)."
    )
    visibility_sigma: Annotated[float, Field(gt=4)] = Field(
        7.0, description="Threshold on one visibility's amplitude against its baseline and subband (robust sigma)."
    )
    max_flagged_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="More than this flagged is an error: nothing reliable would be left."
    )


class CalibrateOptions(Options):
    """Field model and solutions."""

    min_calibrator_jy: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Least catalogued flux of a bandpass calibrator at 1.4 GHz (Jy)."
    )
    max_calibrator_offset_deg: Annotated[float, Field(gt=0)] = Field(
        1.5, description="Largest declination offset of a calibrator from the pointing (deg)."
    )
    model_min_jy: Annotated[float, Field(gt=0)] = Field(
        0.05, description="Faintest catalogue source in the field model (Jy at 1.4 GHz)."
    )
    model_radius_deg: Annotated[float, Field(gt=0)] = Field(
        5.0, description="Radius of the field model about the pointing track (deg): past the first null at 3.2 deg."
    )
    model_min_apparent_jy: Annotated[float, Field(ge=0)] = Field(
        0.002, description="Least apparent flux, through the beam, of a source in the field model (Jy)."
    )
    bandpass_min_snr: Annotated[float, Field(ge=0)] = Field(3.0, description="Least SNR of a bandpass solution.")
    gain_min_snr: Annotated[float, Field(ge=0)] = Field(3.0, description="Least SNR of a gain solution.")
    phase_interval_s: Annotated[float, Field(gt=0)] = Field(
        telescope.INTEGRATION_S,
        description="Solution interval of phase-only gains (s); one integration leaves nothing to interpolate, and "
        "phases that are interpolated limit the image of a bright calibrator.",
    )
    refant: str | None = Field(None, description="Reference antenna by station name; None ranks the antennas.")
    bandpass_hours: Annotated[float, Field(gt=0)] = Field(
        12.0, description="Half-width of the validity of a bandpass (h)."
    )
    gain_minutes: Annotated[float, Field(gt=0)] = Field(
        30.0, description="Half-width of the validity of amplitude gains (min)."
    )
    max_flagged_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="A table with more solutions flagged than this (of antennas that exist) has failed."
    )


class ImageOptions(Options):
    """Imaging and deconvolution."""

    n_pixels: Annotated[int, Field(ge=128, multiple_of=2)] = Field(
        2400, description="Image size on a side (pixels, even)."
    )
    cell_arcsec: Annotated[float, Field(gt=0)] = Field(6.0, description="Pixel size (arcsec).")
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
        0.003,
        description="Largest loss of amplitude at the half-power radius that averaging channels may cost a baseline; "
        "each class of baseline lengths is averaged as far as this allows.",
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


class MeasureOptions(Options):
    """Forced photometry at catalogue positions."""

    min_flux_jy: Annotated[float, Field(gt=0)] = Field(
        0.05, description="Faintest catalogue source that is measured (Jy at 1.4 GHz)."
    )
    min_beam: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.15, description="Sources where the primary beam response is below this are not measured."
    )
    reference_frequency_hz: Annotated[float, Field(ge=1.2e9, le=1.6e9)] = Field(
        telescope.REFERENCE_FREQUENCY_HZ, description="Frequency that fluxes are reported at (Hz)."
    )


class PipelineOptions(Options):
    """Options of every stage."""

    convert: ConvertOptions = ConvertOptions()
    flag: FlagOptions = FlagOptions()
    calibrate: CalibrateOptions = CalibrateOptions()
    image: ImageOptions = ImageOptions()
    measure: MeasureOptions = MeasureOptions()
