"""A record as a person reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def rows(record: Any) -> dict[str, str]:
    """What a record says, by name, as text; records within it are left out."""
    body = {k: v for k, v in record.to_dict().items() if k != "record"}
    nested = {k: v for k, v in body.items() if not (isinstance(v, dict) and "record" in v)}
    plain = {k: v["path"] if isinstance(v, dict) and set(v) == {"path"} else v for k, v in nested.items()}
    return {name: _short(value) for name, value in plain.items()}


def _short(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.10g}" if np.isfinite(value) else "not known"
    if isinstance(value, list) and value and all(isinstance(v, list) and len(v) == 2 for v in value):
        return ", ".join(f"{name} {share:.2%}" for name, share in value)
    if isinstance(value, list):
        inner = [Path(v["path"]["path"]).name if isinstance(v, dict) and "path" in v else _short(v) for v in value]
        return ", ".join(inner) or "none"
    return str(value)
