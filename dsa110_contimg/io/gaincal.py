"""Calls of CASA's solvers, as values: which task, with which arguments, makes a kind of table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dsa110_contimg.io.casa import CasaTask
from dsa110_contimg.options import CalibrateOptions


def solution(kind: str, path: Path, common: dict[str, Any], options: CalibrateOptions) -> CasaTask:
    """One solution over all the integrations: a bandpass (B), a delay (K) or complex gains (G).

    Parameters
    ----------
    common : arguments of every call on the same data.
    """
    own: dict[str, Any] = {"caltable": path, "solint": "inf", "combine": "scan,field"}
    if kind == "B":
        own |= {"bandtype": "B", "solnorm": False, "minsnr": options.bandpass_min_snr}
        return CasaTask("bandpass", common | own, "caltable")
    mode = "p" if options.phase_only_gains and kind == "G" else "ap"
    own |= {"gaintype": kind, "calmode": mode, "minsnr": options.gain_min_snr}
    return CasaTask("gaincal", common | own, "caltable")


def solution_each_time(path: Path, common: dict[str, Any], options: CalibrateOptions, *, phase_only: bool) -> CasaTask:
    """A solution of gains for each integration."""
    own: dict[str, Any] = {"caltable": path, "solint": "int", "gaintype": "G", "calmode": "p" if phase_only else "ap"}
    return CasaTask("gaincal", common | own | {"minsnr": options.gain_min_snr}, "caltable")
