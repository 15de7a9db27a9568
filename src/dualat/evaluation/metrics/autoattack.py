"""Robust accuracy under AutoAttack's standard ensemble, and under its first attack, APGD on the cross-entropy, alone.

    acc_eps = 1/N sum_i [ argmax f(x_i) = y_i and argmax f(a(x_i)) = y_i for every attack a ]     (evaluation/autoattack.py)

Source: Croce and Hein, 2020 (arXiv 2003.01690).
"""

from dualat.core.geometry import ThreatModel
from dualat.evaluation.autoattack import STANDARD, WrongState, autoattack
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.registry import ENSEMBLE
from dualat.results.record import Record, timed


def measure(context: EvaluationContext) -> list[Record]:
    return _ensemble(context, "autoattack", STANDARD)


def measure_apgd(context: EvaluationContext) -> list[Record]:
    return _ensemble(context, "apgd", ("apgd-ce",))


def _ensemble(context: EvaluationContext, name: str, attacks: tuple[str, ...]) -> list[Record]:
    settings = context.settings
    data = context.held_out(settings.autoattack_images or settings.robust_images)
    records = []
    for eps in settings.autoattack_eps or (settings.validation_eps,):
        threat = ThreatModel(settings.norm, eps)
        folder = context.partial(name, ENSEMBLE)
        state = None if folder is None else folder / f"{eps:g}.json"

        def attacked(threat: ThreatModel = threat, state=state) -> Record:
            return autoattack(
                context.required_model,
                data,
                threat,
                attacks=attacks,
                seed=context.seed,
                state=state,
                progress=lambda attack, done, total: context.progress(f"{name} {attack}", done, total),
            )

        try:
            records.append(timed(attacked))
        except WrongState:  # it only saves time: begin anew
            assert state is not None
            state.unlink(missing_ok=True)
            records.append(timed(attacked))
    return records
