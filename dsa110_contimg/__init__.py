"""dsa110_contimg: the continuum pipeline of the DSA-110.

Subband files come in at one end, a judged light curve leaves at the other, and a notebook shows every step between.

>>> import dsa110_contimg as dc
>>> vis = dc.open_group("data-samples/2026-01-26T04:51:13")  # doctest: +SKIP

Importing this package is fast and imports neither CASA nor matplotlib; each name is fetched when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsa110_contimg.io.caltable import open_caltable
    from dsa110_contimg.opening import open_group, open_image, open_ms, open_uvh5
    from dsa110_contimg.opening import open_record as open
    from dsa110_contimg.options import PipelineOptions
    from dsa110_contimg.pipeline import GroupRun
    from dsa110_contimg.science.visfit import fit_fluxes

_WHERE = {
    "GroupRun": ("pipeline", "GroupRun"),
    "PipelineOptions": ("options", "PipelineOptions"),
    "fit_fluxes": ("science.visfit", "fit_fluxes"),
    "open": ("opening", "open_record"),
    "open_caltable": ("io.caltable", "open_caltable"),
    "open_group": ("opening", "open_group"),
    "open_image": ("opening", "open_image"),
    "open_ms": ("opening", "open_ms"),
    "open_uvh5": ("opening", "open_uvh5"),
}

__all__ = [
    "GroupRun",
    "PipelineOptions",
    "fit_fluxes",
    "open",
    "open_caltable",
    "open_group",
    "open_image",
    "open_ms",
    "open_uvh5",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'dsa110_contimg' has no attribute {name!r}")
    module, attribute = _WHERE[name]
    return getattr(importlib.import_module(f"dsa110_contimg.{module}"), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
