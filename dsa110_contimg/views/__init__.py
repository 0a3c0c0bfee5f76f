"""Figures and tables: a Dataset, a record or a table in, a Figure out. Nothing is computed for science here."""

from __future__ import annotations

from dsa110_contimg.views.calibration import gain_solutions
from dsa110_contimg.views.fluxes import flux_ratio, light_curves, noise_vs_time, position_offsets, ratio_by_group
from dsa110_contimg.views.image import image_view, thumbnail
from dsa110_contimg.views.tables import Markup, brightest_sources, key_values, table
from dsa110_contimg.views.visibilities import amplitude_phase, uv_coverage

__all__ = [
    "Markup",
    "amplitude_phase",
    "brightest_sources",
    "flux_ratio",
    "gain_solutions",
    "image_view",
    "key_values",
    "light_curves",
    "noise_vs_time",
    "position_offsets",
    "ratio_by_group",
    "table",
    "thumbnail",
    "uv_coverage",
]
