"""Precision and recall of samples X against real images R, in a space of features.

    M_k(S) = union over s in S of the ball around s that reaches to its k-th nearest neighbour in S,   k = 3
    precision = 1/|X| sum_x [ x in M_k(R) ]:  how many samples look real
    recall    = 1/|R| sum_r [ r in M_k(X) ]:  how much of the real variety the samples reach

Source: Kynkaanniemi et al., 2019 (arXiv 1904.06991), eq. 1 and 2. Both depend on the numbers of images: records tell them.
"""

from typing import Any

import torch
from torch import Tensor

from dualat.results.record import Record, proportion

NEIGHBOURS = 3
_ROWS = 1000  # of a matrix of distances at a time


def precision_recall(samples: Tensor, reference: Tensor, k: int = NEIGHBOURS) -> tuple[Tensor, Tensor]:
    """(precise, recalled): which samples lie in the reference's balls, (N,), and which references in the samples', (M,).

    Args:
        samples: features (N, D).
        reference: features (M, D) of real images.

    Raises:
        ValueError: not more than k features in one of them.
    """
    require_neighbours(len(samples), len(reference), k)
    samples, reference = samples.double(), reference.double()
    return _covered(samples, reference, k), _covered(reference, samples, k)


def require_neighbours(samples: int, reference: int, k: int = NEIGHBOURS) -> None:
    """Refuse sets in which a k-th neighbour does not exist.

    Raises:
        ValueError: k images or fewer.
    """
    if min(samples, reference) <= k:
        raise ValueError(
            f"precision and recall with {k} neighbours need more than {k} samples and references, but there are "
            f"{samples} and {reference}: give more."
        )


def _covered(points: Tensor, centres: Tensor, k: int) -> Tensor:
    """Which points lie in a ball of the centres."""
    # The nearest of all is the centre itself, hence k + 1.
    radii = torch.cat([torch.cdist(part, centres).kthvalue(k + 1).values for part in centres.split(_ROWS)])
    return torch.cat([(torch.cdist(part, centres) <= radii).any(1) for part in points.split(_ROWS)])


def as_records(
    precision: float, recall: float, samples: int, real: int, settings: dict[str, Any], seconds: float
) -> list[Record]:
    """The two as records. samples, real: how many images of each. Recall has no interval: what it varies by are the balls,
    which are the samples', and not the images that they are tried on."""
    settings = {**settings, "neighbours": NEIGHBOURS}
    within = {**settings, "interval": "Wilson, the balls held fixed"}
    varying = {**settings, "interval": "none: the samples' balls vary"}
    return [
        proportion("precision", round(precision * samples), samples, settings=within, seconds=seconds),
        Record("recall", recall, real, settings=varying, seconds=seconds),
    ]
