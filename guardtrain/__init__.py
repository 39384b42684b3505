"""Train image-safety guards on frozen embeddings and measure how many labels they need."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from guardtrain.guards import Guard

__all__ = ["Guard"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name == "Guard":  # imported when it is asked for: the command line starts without it
        from guardtrain.guards import Guard

        return Guard
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
