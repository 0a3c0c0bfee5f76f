"""One model per stage: every default, bound and unit of the pipeline in one place.

The descriptions are the manual: the command line help and ``docs/reference`` are made from them.
`digest` is the part of a checkpoint's key that says "the same options".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from dsa110_contimg import telescope
from dsa110_contimg.options_base import Options
from dsa110_contimg.options_image import ImageOptions, SelfcalOptions

__all__ = [
    "ApplyOptions",
    "CalibrateOptions",
    "ConvertOptions",
    "FlagOptions",
    "ImageOptions",
    "JudgeOptions",
    "MeasureOptions",
    "Options",
    "PipelineOptions",
    "SearchOptions",
    "SelfcalOptions",
]

SINGLE_SOURCE_UVRANGE = ">1klambda"
"""Baselines that a group is solved on against the model of one source: they see little of the rest of the field."""


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
        description="midpoint: one FIELD, the meridian at mid-group; meridian: a FIELD for each integration, for other "
        "programs: the steps after conversion take midpoint and one spectral window.",
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


class SearchOptions(Options):
    """Search for calibrators that cross the beam."""

    radius_deg: Annotated[float, Field(gt=0, le=5)] = Field(
        1.5, description="Largest distance of a calibrator's declination from the pointing (deg, both of date)."
    )
    top_n: Annotated[int, Field(ge=1, le=500)] = Field(20, description="Most calibrators that are listed, best first.")
    min_flux_jy: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Least catalogued flux of a calibrator at 1.4 GHz (Jy)."
    )
    flat_index: Annotated[float, Field(ge=0, le=1)] = Field(
        0.3,
        description="A spectrum with an index between L and C band above minus this is flat or inverted: its core is "
        "compact, and may vary.",
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
    rfi: Literal["builtin", "aoflagger", "casa", "none"] = Field(
        "builtin",
        description="What finds interference. builtin: the amplitude averaged over baselines, against other times, "
        "neighbouring channels and, without the bandpass, the whole band; aoflagger: "
        "AOFlagger's SumThreshold, baseline by baseline; casa: tfcrop and rflag; none: outliers alone.",
    )
    aoflagger_threshold: Annotated[float, Field(gt=0)] = Field(
        1.2,
        description="Factor on the thresholds of AOFlagger's generic strategy; lower finds more. 1.0 flags nine times "
        "as much noise, 1.4 loses a tenth of what is 5 sigma a visibility.",
    )
    extend_polarizations: bool = Field(default=True, description="What is found in one polarisation is flagged in all.")
    extend_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5,
        description="A channel or an integration of a baseline is flagged whole if more than this fraction of it is "
        "found; 1 extends nothing.",
    )
    grow_channels: Annotated[int, Field(ge=0)] = Field(
        0, description="Channels on either side of what is found that are flagged too."
    )
    grow_integrations: Annotated[int, Field(ge=0)] = Field(
        0, description="Integrations before and after what is found that are flagged too."
    )
    max_flagged_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.9, description="More than this flagged is an error: nothing reliable would be left."
    )
    threads: Annotated[int, Field(ge=1, le=64)] = Field(2, description="Threads; they do not change the result.")


FAST_CALIBRATION: Mapping[str, object] = {
    "phase_interval_s": 30.0,
    "channel_bin": 4,
    "uvrange": ">0.1klambda",
    "phase_only_gains": True,
    "cross_check": False,
}
"""What the preset ``fast`` has of its own. The preset ``standard`` is the defaults below."""


class CalibrateOptions(Options):
    """Field model and solutions."""

    preset: Literal["standard", "fast"] = Field(
        "standard",
        description="standard: all defaults as told. fast: averaged to 30 s and 4 channels before solving, baselines "
        "from 0.1 klambda on, phase-only gains on top of the bandpass, no cross-check. What is given besides wins.",
    )
    solver: Literal["casa", "casa-only", "stefcal"] = Field(
        "casa",
        description="All work on the normal equations of the data. casa: single channels of the bandpass by our own "
        "alternating least squares (stefcal), gains and phases by CASA; casa-only: the bandpass by CASA too, which "
        "takes several times as long; stefcal: without CASA.",
    )
    cross_check: bool = Field(
        default=True,
        description="Let CASA and stefcal solve the same bandpass (of channels averaged to subbands, unless casa-only) "
        "and fail if they differ by more than cross_check_sigma.",
    )
    cross_check_sigma: Annotated[float, Field(gt=0)] = Field(
        0.25,
        description="Largest rms difference between the two solvers, in standard errors. They minimise the same sums, "
        "but CASA stops when chi-square falls by less than 0.001: up to sqrt(0.001 (N - 1) / 2) with N antennas.",
    )
    do_k: bool = Field(
        default=False, description="Solve a delay (K) for each antenna before the bandpass, which otherwise holds it."
    )
    split_amplitude_phase: bool = Field(
        default=False,
        description="Write amplitudes and phases of bandpass and gains as tables of their own: BA and BP, GA and GP, "
        "whose products are B and G.",
    )
    short_interval_s: float | None = Field(
        None,
        gt=0,
        description="Solve complex gains over so many seconds (2G) on top of all others in a calibrator's own group, "
        "and apply them there; None does not.",
    )
    do_flux: bool = Field(
        default=False,
        description="Solve one amplitude for the whole array (FLUX) in every group, on top of all other tables. Takes "
        "out a drift that all antennas share, and ties the scale of the group to the fluxes of the catalogue.",
    )
    channel_bin: Annotated[int, Field(ge=1, le=48)] = Field(
        1, description="Channels averaged before solving: those of one bandpass solution. A divisor of 48."
    )
    uvrange: str = Field(
        "",
        description="Baselines that are solved on, as CASA writes it (>1klambda, <300m, 0.1~2klambda). Empty: all, as "
        f"the model holds the whole field; {SINGLE_SOURCE_UVRANGE} for the one source of model_source setjy (>0m takes "
        "all then). For a component list of one source, give it.",
    )
    phase_only_gains: bool = Field(
        default=False, description="Gains G of phase alone; the bandpass then carries the amplitude scale."
    )
    fields: str = Field(
        "",
        description="Integrations that the calibrator is solved on, in CASA's field syntax (3, 0~15, lists, patterns "
        "of the names of `open_ms`); none by default: those that window_response leaves.",
    )
    window_response: Annotated[float, Field(ge=0, le=1)] = Field(
        0.5,
        description="Integrations in which the beam responds to the calibrator with less than this part of its best "
        "response in the group are not solved on.",
    )
    window_integrations: Annotated[int, Field(ge=0, le=24)] = Field(
        0, description="Solve on so many integrations about the best response instead; 0: follow window_response."
    )
    min_calibrator_jy: Annotated[float, Field(gt=0)] = Field(
        1.0, description="Least catalogued flux of a bandpass calibrator at 1.4 GHz (Jy)."
    )
    max_calibrator_offset_deg: Annotated[float, Field(gt=0)] = Field(
        1.5, description="Largest declination offset of a calibrator from the pointing (deg)."
    )
    model_min_jy: Annotated[float, Field(gt=0)] = Field(
        0.01,
        description="Faintest catalogue source in the field model (Jy at 1.4 GHz). The packaged catalogue ends at "
        "0.05; a deeper one of your own is used down to here.",
    )
    model_radius_deg: Annotated[float, Field(gt=0)] = Field(
        5.0, description="Radius of the field model about the pointing track (deg): past the first null at 3.2 deg."
    )
    model_min_apparent_jy: Annotated[float, Field(ge=0)] = Field(
        0.002, description="Least apparent flux, through the beam, of a source in the field model (Jy)."
    )
    bandpass_min_snr: Annotated[float, Field(ge=0)] = Field(5.0, description="Least SNR of a bandpass solution.")
    gain_min_snr: Annotated[float, Field(ge=0)] = Field(3.0, description="Least SNR of a gain solution.")
    phase_interval_s: Annotated[float, Field(gt=0)] = Field(
        telescope.INTEGRATION_S,
        description="Solution interval of phase-only gains (s); one integration leaves nothing to interpolate, and "
        "phases that are interpolated limit the image of a bright calibrator.",
    )
    refant: str | None = Field(
        None,
        description="Reference antenna by station name, or several in order of preference, separated by commas; None "
        "ranks the antennas.",
    )
    bandpass_hours: Annotated[float, Field(gt=0)] = Field(
        12.0, description="Half-width of the validity of a bandpass (h)."
    )
    gain_minutes: Annotated[float, Field(gt=0)] = Field(
        30.0, description="Half-width of the validity of amplitude gains (min)."
    )
    max_flagged_fraction: Annotated[float, Field(gt=0, le=1)] = Field(
        0.5, description="A table with more solutions flagged than this (of antennas that exist) has failed."
    )
    model_source: Literal["catalog", "setjy", "componentlist"] = Field(
        "catalog",
        description="What MODEL_DATA is predicted from, always by ourselves, through the drifting beam. catalog: all "
        "catalogue sources of the field; setjy: the calibrator alone, as CASA's setjy has it (Perley & Butler 2017), "
        "but at its own place and not the phase centre; groups without a calibrator take the catalogue; componentlist: "
        "point sources of a CASA component list.",
    )
    model_path: Path | None = Field(
        None, validate_default=True, description="The component list of model_source componentlist (a directory)."
    )
    beam_table: Path | None = Field(
        None,
        description="A measured primary beam (ECSV, as dsa110 beam fit writes) to predict the model through; None: "
        "the Airy pattern. Given to image or calibrate, it is the other's too.",
    )

    @model_validator(mode="before")
    @classmethod
    def _fill_preset(cls, given: Any) -> Any:
        """What the preset has of its own, under what was given."""
        if isinstance(given, Mapping) and given.get("preset") == "fast":
            single = {"uvrange": ""} if given.get("model_source") == "setjy" else {}
            return {**FAST_CALIBRATION, **single, **given}
        return given

    @field_validator("model_path")
    @classmethod
    def _belongs_to_its_source(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if (info.data.get("model_source") == "componentlist") != (value is not None):
            raise ValueError("model_path and model_source componentlist go together")
        return None if value is None else value.absolute()

    @property
    def solved_uvrange(self) -> str:
        """`uvrange`, or what the model asks for where none is given."""
        return self.uvrange or (SINGLE_SOURCE_UVRANGE if self.model_source == "setjy" else "")

    def for_group(self, is_calibrator: bool) -> CalibrateOptions:
        """Where the model is a calibrator alone, a group that none crosses takes the catalogue."""
        if is_calibrator or self.model_source != "setjy":
            return self
        plain = str(FAST_CALIBRATION["uvrange"]) if self.preset == "fast" else ""
        return self.model_copy(update={"model_source": "catalog", "uvrange": self.uvrange or plain})

    @field_validator("channel_bin")
    @classmethod
    def _fits_a_subband(cls, value: int) -> int:
        if telescope.N_CHANNELS_PER_SUBBAND % value:
            raise ValueError(f"{value} does not divide the {telescope.N_CHANNELS_PER_SUBBAND} channels of a subband")
        return value


class ApplyOptions(Options):
    """Correction of a Measurement Set with its tables."""

    engine: Literal["native", "casa"] = Field(
        "native",
        description="native: our own kernel, one pass over the data; casa: applycal, to compare with. They agree to "
        "the rounding of single precision.",
    )
    calwt: bool = Field(
        default=False,
        description="Scale WEIGHT with the gains, from SIGMA, as CASA's calwt does. Off: antennas are equally noisy "
        "after calibration, to our knowledge, and the weights count samples.",
    )


class JudgeOptions(Options):
    """Judging of calibration solutions."""

    bounds: Path | None = Field(
        None, description="A file of bounds of your own, like the packaged data/bounds.yaml; None takes that."
    )
    fail_on: Literal["bad", "suspect"] = Field(
        "bad", description="Solutions judged so, or worse, have failed: they are registered as failed, never applied."
    )


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

    search: SearchOptions = SearchOptions()
    convert: ConvertOptions = ConvertOptions()
    flag: FlagOptions = FlagOptions()
    calibrate: CalibrateOptions = CalibrateOptions()
    judge: JudgeOptions = JudgeOptions()
    apply: ApplyOptions = ApplyOptions()
    image: ImageOptions = ImageOptions()
    selfcal: SelfcalOptions = SelfcalOptions()
    measure: MeasureOptions = MeasureOptions()

    @model_validator(mode="before")
    @classmethod
    def _share_the_beam(cls, given: Any) -> Any:
        """The beam of calibrate or of image is that of both, unless both are given."""
        if not isinstance(given, Mapping):
            return given
        steps = {name: given[name] for name in ("calibrate", "image") if name in given}
        plain = {n: v.model_dump(exclude_unset=True) if isinstance(v, Options) else v for n, v in steps.items()}
        tables = {n: v["beam_table"] for n, v in plain.items() if isinstance(v, Mapping) and "beam_table" in v}
        if len(tables) != 1:
            return given
        ((first, table),) = tables.items()
        other = "image" if first == "calibrate" else "calibrate"
        return {**given, other: {**plain.get(other, {}), "beam_table": table}}

    @model_validator(mode="after")
    def _one_beam(self) -> PipelineOptions:
        if self.calibrate.beam_table != self.image.beam_table:
            found = f"{self.calibrate.beam_table} and {self.image.beam_table}"
            raise ValueError(f"calibrate and image see the sky through one beam_table, not {found}")
        return self
