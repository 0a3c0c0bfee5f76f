"""What all options have in common: frozen, no unknown names, and a digest."""

from __future__ import annotations

import hashlib

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Base: frozen, no unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def digest(self) -> str:
        """Short hash of all values that can change a result, equal for equal options."""
        only_how = {"threads", "workers", "staging", "memory_gb"}  # how long it takes, never what comes out
        return hashlib.sha256(self.model_dump_json(exclude=only_how).encode()).hexdigest()[:16]
