"""The contenders of the benchmark: the textbook, this library in each precision, and foolbox where it is installed."""

import copy
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from dualat.bench import textbook
from dualat.bench.settings import BenchSettings
from dualat.data.initial import Uniform
from dualat.fast import compiled
from dualat.geometry import ThreatModel
from dualat.load import LoadedModel, ModelDescription
from dualat.methods.base import Batch
from dualat.methods.dat import DAT
from dualat.methods.settings import AttackSettings, ContrastiveSettings, LossSettings
from dualat.models.registry import build_network
from dualat.models.settings import NetworkSettings
from dualat.objectives import lower_energy, raise_cross_entropy
from dualat.pgd import frozen, pgd
from dualat.precision import autocast
from dualat.training.ema import EMA
from dualat.training.loop import train_step
from dualat.training.optimizer import build_optimizer
from dualat.training.settings import OptimizerSettings, StageSettings

STEP_SIZE = 0.1


@dataclass
class Inputs:
    """One batch for each loss, on the device."""

    images: Tensor
    labels: Tensor
    real: Tensor
    starts: Tensor


def build(settings: BenchSettings, device: torch.device) -> tuple[LoadedModel, Inputs]:
    """A network with BatchNorm statistics of its own making, and random images. Speed does not depend on either."""
    torch.manual_seed(0)
    shape = (settings.channels, settings.image_size, settings.image_size)
    network_settings = NetworkSettings(name=settings.network, normalize="data")
    network = build_network(network_settings, shape, settings.classes, [0.5] * shape[0], [0.25] * shape[0])
    names = [str(k) for k in range(settings.classes)]
    description = ModelDescription(network_settings, names, shape, normalized=True)
    model = LoadedModel(network, description, Uniform(shape)).to(device)
    images, real, starts = (torch.rand(settings.batch_size, *shape).to(device) for _ in range(3))
    with torch.no_grad():
        for _ in range(3):
            model.train()(images)  # otherwise statistics are those of no data at all
    labels = torch.arange(settings.batch_size, device=device) % settings.classes
    return model.eval(), Inputs(images, labels, real, starts)


Works = dict[str, Callable[[], object]]
"""task -> what does it once"""


def textbook_works(model: nn.Module, inputs: Inputs, settings: BenchSettings) -> Works:
    model, i = copy.deepcopy(model).eval(), inputs
    size = 2.5 * settings.eps / settings.attack_steps
    trainer = textbook.Trainer(
        copy.deepcopy(model).eval(), settings.steps, STEP_SIZE, settings.eps, settings.attack_steps
    )

    def classify() -> Tensor:
        with torch.no_grad():
            return model(i.images)

    return {
        "train_step": lambda: trainer.step(i.images, i.labels, i.real, i.labels, i.starts),
        "sampling": lambda: textbook.sample(model, i.starts, i.labels, settings.steps, STEP_SIZE),
        "attack": lambda: textbook.attack(
            model, i.images, i.labels, settings.eps, settings.attack_steps, size
        ),
        "classification": classify,
    }


def own_works(
    model: LoadedModel,
    inputs: Inputs,
    settings: BenchSettings,
    dtype: torch.dtype,
    compile_loop: bool,
    stack: ExitStack,
) -> Works:
    """This library as a run would use it: channels last, `dtype`, and the compiled loop on request."""
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    trained = copy.deepcopy(model)
    if compile_loop:
        stack.enter_context(compiled(model, settings.batch_size))
        stack.enter_context(compiled(trained, settings.batch_size))
    i, threat = inputs, ThreatModel("L2", settings.eps)
    device, size = i.images.device, 2.5 * settings.eps / settings.attack_steps
    contrastive = ContrastiveSettings(t_max=settings.steps, step_size=STEP_SIZE)
    attack = AttackSettings(norm="L2", eps=settings.eps, steps=settings.attack_steps, step_size=size)
    method = DAT(attack, contrastive, LossSettings(), settings.batch_size)
    method.curriculum.steps = settings.steps
    stage = StageSettings(steps=1, epochs=None, freeze_batchnorm=True, optimizer=OptimizerSettings(lr=1e-3))
    optimizer, average = build_optimizer(trained, stage.optimizer), EMA(trained, 0.999)
    batch = Batch(i.images, i.labels, i.real, i.labels, i.starts)

    def step() -> None:
        train_step(trained, method, batch, optimizer, 1e-3, stage, dtype)
        average.update(trained)

    def sample() -> Tensor:
        with autocast(dtype, device):
            return pgd(model, i.starts, lower_energy(i.labels), steps=settings.steps, step_size=STEP_SIZE)

    def perturb() -> Tensor:
        objective = raise_cross_entropy(i.labels)
        with autocast(dtype, device):
            return pgd(model, i.images, objective, threat, steps=settings.attack_steps, step_size=size)

    def classify() -> Tensor:
        with frozen(model), torch.no_grad(), autocast(dtype, device):
            return model(i.images)

    return {"train_step": step, "sampling": sample, "attack": perturb, "classification": classify}


def foolbox_works(model: nn.Module, inputs: Inputs, settings: BenchSettings) -> Works:
    """foolbox's L2 PGD with the same steps; nothing where it is not installed."""
    if find_spec("foolbox") is None:
        return {}
    import foolbox  # pyright: ignore[reportMissingImports]

    model = copy.deepcopy(model).eval()
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device=inputs.images.device)
    size = 2.5 * settings.eps / settings.attack_steps
    attack = foolbox.attacks.L2ProjectedGradientDescentAttack(
        abs_stepsize=size, steps=settings.attack_steps, random_start=False
    )
    return {"attack": lambda: attack(wrapped, inputs.images, inputs.labels, epsilons=settings.eps)}
