"""What samples are compared with, looked at before any is drawn."""

from dualat.data.images import ImageData, Shape, Splits
from dualat.evaluation.precision_recall import require_neighbours
from dualat.evaluation.reference import Reference, read_reference


def own_split(source: str, data: Splits) -> ImageData | None:
    """The split that a reference's name means; None where it means something else."""
    return {"test": data.test, "train": data.train}.get(source)


def reference_of(source: str, data: Splits, shape: Shape) -> Reference:
    """What samples of `shape` (C, H, W) are compared with: a split of the data, or what `read_reference` reads."""
    split = own_split(source, data)
    return read_reference(source if split is None else split, shape)


def check_reference(
    reference: Reference | ImageData, samples: int, dimension: int, features: str, published: bool = False
) -> None:
    """Refuse a reference that a metric would refuse once `samples` samples are drawn.

    Args:
        reference: a split is not decoded for it.
        dimension, features: number of the metric's features, and their name.
        published: the metric takes the statistics of a reference that has images too.

    Raises:
        ValueError: statistics of another dimension, or too few images.
    """
    images = reference.images if isinstance(reference, Reference) else reference
    if isinstance(reference, Reference) and (images is None or (published and reference.statistics)):
        reference.require_statistics(dimension, features)
    if images is not None:
        require_neighbours(samples, len(images))
