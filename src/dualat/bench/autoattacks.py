"""AutoAttack through this library's adapter, and by pyautoattack used directly."""

import copy

import torch
from pyautoattack import AutoAttack

from dualat.bench.contenders import Inputs, Works, within
from dualat.bench.settings import BenchSettings
from dualat.core.geometry import ThreatModel
from dualat.data.images import ImageData
from dualat.evaluation.attack_kit import undisturbed
from dualat.evaluation.metrics.autoattack import autoattack, choose_attacks
from dualat.models.model import LoadedModel

NO_ROOM = 1e-3
"""Radius of AutoAttack, in units of eps: every image stands, so that each attack spends its whole budget on each."""


def autoattacks(model: LoadedModel, inputs: Inputs, settings: BenchSettings) -> dict[str, Works]:
    """AutoAttack through pyautoattack alone, and through `dualat evaluate`'s adapter: the same attacks with the same
    budgets on the same images, in fp32, at a radius so small that all stand. Each returns the robust accuracy."""
    model, device = copy.deepcopy(model).eval(), inputs.images.device
    images = (inputs.images[: settings.autoattack_images] * 255).byte().cpu()
    with torch.no_grad():
        labels = model(images.to(device).float() / 255).argmax(
            dim=1
        )  # else most would fall before any attack
    data = ImageData(images, labels.cpu(), tuple(model.class_names), "random images")
    threat = ThreatModel("L2", NO_ROOM * settings.eps)
    plan, _ = choose_attacks(settings.autoattack_attacks, settings.classes, threat.norm, data.shape)

    kit = AutoAttack(model, norm="L2", eps=threat.eps, seed=0, device=device)  # version "standard"
    kit.attacks_to_run = list(plan)
    targets = min(kit.apgd_targeted.n_target_classes, settings.classes - 1)
    kit.apgd_targeted.n_target_classes = kit.fab.n_target_classes = targets
    x = data.float().to(device)

    def direct() -> float:
        with undisturbed():
            _, predicted = kit.run_standard_evaluation(x, labels, batch_size=len(x))
        return float((predicted == labels).float().mean())

    def adapted() -> float:
        return autoattack(model, data, threat, attacks=plan, batch_size=len(x)).value

    return {
        "pyautoattack fp32": within("fp32", device, {"autoattack": direct}),
        "dualat fp32": within("fp32", device, {"autoattack": adapted}),
    }
