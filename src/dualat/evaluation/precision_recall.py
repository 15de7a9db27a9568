"""Precision and recall of samples X against real images R, in a space of features.

    M_k(S) = union over s in S of the ball around s that reaches to its k-th nearest neighbour in S,   k = 3
    precision = 1/|X| sum_x [ x in M_k(R) ]:  how many samples look real
    recall    = 1/|R| sum_r [ r in M_k(X) ]:  how much of the real variety the samples reach

Source: Kynkaanniemi et al., 2019 (arXiv 1904.06991), eq. 1 and 2. Both depend on the numbers of images: records tell them.
"""

import torch
from torch import Tensor

NEIGHBOURS = 3
_ROWS = 1000  # of a matrix of distances at a time


def precision_recall(samples: Tensor, reference: Tensor, k: int = NEIGHBOURS) -> tuple[Tensor, Tensor]:
    """Which samples lie in the reference's balls, (N,), and which references in the samples', (M,).

    Args:
        samples, reference: features (N, D) and (M, D), of which more than k (else ValueError).
    """
    require_neighbours(len(samples), len(reference), k)
    samples, reference = samples.double(), reference.double()
    return _covered(samples, reference, k), _covered(reference, samples, k)


def require_neighbours(samples: int, reference: int, k: int = NEIGHBOURS) -> None:
    """ValueError for k images or fewer, where a k-th neighbour does not exist."""
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
