"""Noise, targets, sampling and training; `CounterpointPipeline` is loaded when it is first asked for."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .pipeline import CounterpointPipeline

__all__ = ["CounterpointPipeline"]


def __getattr__(name: str) -> Any:
    if name == "CounterpointPipeline":
        from .pipeline import CounterpointPipeline

        return CounterpointPipeline
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
