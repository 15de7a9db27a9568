"""Systems side by side, from records alone: one row per system, one column per metric value. Needs no PyTorch."""

from dualat.results.compare.formats import FORMATS
from dualat.results.compare.side_by_side import compare
from dualat.results.compare.sources import published_names

__all__ = ["FORMATS", "compare", "published_names"]
