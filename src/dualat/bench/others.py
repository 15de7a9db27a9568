"""Other libraries at the same work: foolbox and torchattacks, where they can be imported."""

import copy
from collections.abc import Callable, Sequence
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from dualat.bench.contenders import Inputs, Works, dtype_of, within
from dualat.bench.settings import BenchSettings
from dualat.system.precision import autocast


def attack_libraries(
    model: nn.Module, inputs: Inputs, settings: BenchSettings, precisions: Sequence[str]
) -> dict[str, Works]:
    """L2 PGD with the same steps, by each library that is here, in each precision, by name."""
    makers = {"foolbox": foolbox_attack, "torchattacks": torchattacks_attack}
    found: dict[str, Works] = {}
    for library, make in makers.items():
        if find_spec(library) is None:
            continue
        attack = make(copy.deepcopy(model).eval(), inputs, settings)
        for precision in precisions:
            works: Works = {"attack": cast(attack, precision, inputs.images.device)}
            found[f"{library} {precision}"] = within(precision, inputs.images.device, works)
    return found


def cast(attack: Callable[[], object], precision: str, device: torch.device) -> Callable[[], object]:
    """The attack under autocast where the precision is bf16."""

    def run() -> object:
        with autocast(dtype_of(precision), device):
            return attack()

    return run


def foolbox_attack(model: nn.Module, inputs: Inputs, settings: BenchSettings) -> Callable[[], Tensor]:
    """foolbox: every call also says which images were fooled, which is one more forward pass."""
    import foolbox  # pyright: ignore[reportMissingImports]

    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=inputs.images.device)
    size = 2.5 * settings.eps / settings.attack_steps
    attack = foolbox.attacks.L2ProjectedGradientDescentAttack(
        abs_stepsize=size, steps=settings.attack_steps, random_start=False
    )
    return lambda: attack(wrapped, inputs.images, inputs.labels, epsilons=settings.eps)[1]


def torchattacks_attack(model: nn.Module, inputs: Inputs, settings: BenchSettings) -> Callable[[], Tensor]:
    """torchattacks."""
    import torchattacks  # pyright: ignore[reportMissingImports]

    size = 2.5 * settings.eps / settings.attack_steps
    attack = torchattacks.PGDL2(
        model, eps=settings.eps, alpha=size, steps=settings.attack_steps, random_start=False
    )
    return lambda: attack(inputs.images, inputs.labels)
