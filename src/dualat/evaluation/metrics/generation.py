"""Quality of samples: does an independent classifier see the class asked for, and are they distributed as real images?

    sample_class_accuracy = 1/N sum_i [ judge(x_i) = y_i ],   labels class-balanced: y_i = i mod K

Distances are taken in the judge's own features (fidelity.py).
"""

import time

from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.features import JudgeFeatures
from dualat.evaluation.fidelity import fidelity_records
from dualat.evaluation.judge import Judge
from dualat.evaluation.reference import Reference
from dualat.evaluation.samples import ImageSet
from dualat.results.record import Record, proportion


def measure(context: EvaluationContext) -> list[Record]:
    return generation_records(context.samples, context.reference, context.judge, context.seed)


def needs(context: EvaluationContext) -> None:
    context.check_reference(JudgeFeatures.dimension, "features of the judge")


def generation_records(samples: ImageSet, reference: Reference, judge: Judge, seed: int = 0) -> list[Record]:
    """Record `sample_class_accuracy`, where the samples have labels, and those of `fidelity_records` in judge features.

    Args:
        samples: 8-bit images in the judge's shape.
        reference: held-out real images, or others.
        seed: of subsets and intervals.
    """
    records = []
    features = JudgeFeatures(judge)
    features.check_shape(samples.images)
    samples = samples.of_classes(judge.train.class_names, judge.train.name)
    if samples.labels is not None:
        began = time.perf_counter()
        hits = int((judge.predict(samples.images.float() / 255) == samples.labels).sum())
        settings = {**samples.settings, "judge": judge.name}
        record = proportion("sample_class_accuracy", hits, len(samples), settings=settings, seed=seed)
        record.seconds = round(time.perf_counter() - began, 3)
        records.append(record)
    return records + fidelity_records(samples, reference, features, seed)
