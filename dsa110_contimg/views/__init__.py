"""Figures and tables: a Dataset, a record or a table in, a Figure out. Nothing is computed for science here.

Names are fetched when they are first used: who opens a Dataset does not pay for matplotlib.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsa110_contimg.views.calibration import (
        antenna_amplitudes,
        antenna_phases,
        gain_solutions,
        refant_ranking,
        solution_snr,
    )
    from dsa110_contimg.views.explore import explorer
    from dsa110_contimg.views.explore_image import image_explorer
    from dsa110_contimg.views.fluxes import flux_ratio, light_curves, noise_vs_time, position_offsets, ratio_by_group
    from dsa110_contimg.views.image import image_view, thumbnail
    from dsa110_contimg.views.interactive import (
        Interactive,
        interactive_amplitude,
        interactive_phase,
        interactive_uv,
        interactive_waterfall,
    )
    from dsa110_contimg.views.looking import amplitude, flags, phase, waterfall
    from dsa110_contimg.views.planes import flag_fractions
    from dsa110_contimg.views.search import calibrator_search
    from dsa110_contimg.views.skyplot import image_glance, sky
    from dsa110_contimg.views.summary import glance
    from dsa110_contimg.views.tables import Markup, brightest_sources, key_values, table
    from dsa110_contimg.views.visibilities import amplitude_phase, uv_coverage

_WHERE = {
    "Interactive": "interactive",
    "Markup": "tables",
    "amplitude": "looking",
    "amplitude_phase": "visibilities",
    "antenna_amplitudes": "calibration",
    "antenna_phases": "calibration",
    "brightest_sources": "tables",
    "calibrator_search": "search",
    "explorer": "explore",
    "flag_fractions": "planes",
    "flags": "looking",
    "flux_ratio": "fluxes",
    "gain_solutions": "calibration",
    "glance": "summary",
    "image_explorer": "explore_image",
    "image_glance": "skyplot",
    "image_view": "image",
    "interactive_amplitude": "interactive",
    "interactive_phase": "interactive",
    "interactive_uv": "interactive",
    "interactive_waterfall": "interactive",
    "key_values": "tables",
    "light_curves": "fluxes",
    "noise_vs_time": "fluxes",
    "phase": "looking",
    "position_offsets": "fluxes",
    "ratio_by_group": "fluxes",
    "refant_ranking": "calibration",
    "sky": "skyplot",
    "solution_snr": "calibration",
    "table": "tables",
    "thumbnail": "image",
    "uv_coverage": "visibilities",
    "waterfall": "looking",
}

__all__ = [
    "Interactive",
    "Markup",
    "amplitude",
    "amplitude_phase",
    "antenna_amplitudes",
    "antenna_phases",
    "brightest_sources",
    "calibrator_search",
    "explorer",
    "flag_fractions",
    "flags",
    "flux_ratio",
    "gain_solutions",
    "glance",
    "image_explorer",
    "image_glance",
    "image_view",
    "interactive_amplitude",
    "interactive_phase",
    "interactive_uv",
    "interactive_waterfall",
    "key_values",
    "light_curves",
    "noise_vs_time",
    "phase",
    "position_offsets",
    "ratio_by_group",
    "refant_ranking",
    "sky",
    "solution_snr",
    "table",
    "thumbnail",
    "uv_coverage",
    "waterfall",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'dsa110_contimg.views' has no attribute {name!r}")
    module = importlib.import_module(f"dsa110_contimg.views.{_WHERE[name]}")
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
