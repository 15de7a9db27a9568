"""Robust accuracy under APGD on the cross-entropy, alone: AutoAttack's first attack (autoattack.py).

Source: Croce and Hein, 2020 (arXiv 2003.01690).
"""

from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.metrics.autoattack import ensemble_records
from dualat.results.record import Record


def measure(context: EvaluationContext) -> list[Record]:
    return ensemble_records(context, "apgd", ("apgd-ce",))
