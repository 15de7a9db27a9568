"""Systems side by side, from records alone: one row per system, one column per figure. Needs no PyTorch."""

from dualat.compare.formats import FORMATS
from dualat.compare.side_by_side import compare
from dualat.compare.sources import published_names

__all__ = ["FORMATS", "compare", "published_names"]
