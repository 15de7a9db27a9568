"""How near samples are to real images in the features of a network trained on ImageNet: the values of fidelity.py.

frechet_distance, kernel_distance, precision, recall,   each in the features of `ImageNetFeatures` (features.py)
"""

from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.features import ImageNetFeatures, imagenet_weights
from dualat.evaluation.fidelity import fidelity_records
from dualat.results.record import Record


def measure(context: EvaluationContext) -> list[Record]:
    features = ImageNetFeatures.for_shape(context.samples.shape, context.device)
    return fidelity_records(context.samples, context.reference, features, context.seed)


def needs(context: EvaluationContext) -> None:
    imagenet_weights()
    context.check_reference(ImageNetFeatures.dimension, "ImageNet features")
