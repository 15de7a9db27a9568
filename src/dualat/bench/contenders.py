"""The contenders of the benchmark: the textbook, and this library in each precision, eager and compiled."""

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dualat.bench import textbook
from dualat.bench.settings import BenchSettings
from dualat.core.geometry import ThreatModel
from dualat.core.loop import GradientLoop, frozen
from dualat.core.objectives import lower_energy, raise_cross_entropy
from dualat.data.distributions import Uniform
from dualat.methods.base import Batch
from dualat.methods.dat import DAT
from dualat.methods.registry import DATSettings
from dualat.methods.settings import AttackSettings, ContrastiveSettings
from dualat.models.model import LoadedModel, ModelDescription
from dualat.models.registry import build_network
from dualat.models.settings import NetworkSettings
from dualat.system.precision import autocast, fast_fp32, strict_fp32
from dualat.training.ema import EMA
from dualat.training.optimizer import build_optimizer
from dualat.training.settings import OptimizerSettings, StageSettings
from dualat.training.step import train_step
from dualat.types import Activation

STEP_SIZE = 0.1
TWENTY = 20
"""Steps, or as many as are asked for, after which compiled and eager loops are compared."""


@dataclass
class Inputs:
    """One batch for each loss, on the device."""

    images: Tensor
    labels: Tensor
    real: Tensor
    starts: Tensor


def build(
    settings: BenchSettings, device: torch.device, activation: Activation = "relu"
) -> tuple[LoadedModel, Inputs]:
    """A network with BatchNorm statistics of its own making, and random images. Speed does not depend on either."""
    torch.manual_seed(0)
    shape = (settings.channels, settings.image_size, settings.image_size)
    network_settings = NetworkSettings(name=settings.network, activation=activation, normalize="data")
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


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """fp32 that is float32; tf32; or bf16, in which float32 that is left is tf32 too, as in training."""
    with strict_fp32() if precision == "fp32" else fast_fp32(device):
        yield


def within(precision: str, device: torch.device, works: Works) -> Works:
    """The same works in that arithmetic."""

    def inside(work: Callable[[], object]) -> Callable[[], object]:
        def run() -> object:
            with arithmetic(precision, device):
                return work()

        return run

    return {task: inside(work) for task, work in works.items()}


def dtype_of(precision: str) -> torch.dtype:
    """What autocast runs in."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def textbook_works(model: nn.Module, inputs: Inputs, settings: BenchSettings) -> Works:
    """The textbook, in PyTorch's default precision."""
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


def second_stage(settings: BenchSettings) -> tuple[DAT, StageSettings]:
    """DAT with the steps that are timed, and its stage."""
    size = 2.5 * settings.eps / settings.attack_steps
    attack = AttackSettings(norm="L2", eps=settings.eps, steps=settings.attack_steps, step_size=size)
    dat = DATSettings(
        attack=attack, contrastive=ContrastiveSettings(t_max=settings.steps, step_size=STEP_SIZE)
    )
    stage = StageSettings(
        method=dat,
        steps=1,
        batch_size=settings.batch_size,
        freeze_batchnorm=True,
        optimizer=OptimizerSettings(lr=1e-3),
    )
    return DAT(dat, settings.batch_size), stage


def own_works(
    model: LoadedModel,
    inputs: Inputs,
    settings: BenchSettings,
    precision: str,
    compile_loop: bool,
) -> Works:
    """This library as a run would use it: channels last, in that precision, and the compiled loop on request.

    Two are no tasks. comparison: samples after at least TWENTY steps, to compare one way with another. fell_back: whether
    the compiled loop runs eagerly after all.
    """
    dtype = dtype_of(precision)
    model = copy.deepcopy(model).to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    trained = copy.deepcopy(model)
    loops = [GradientLoop(m, compile_loop, settings.batch_size) for m in (model, trained)]
    i, threat = inputs, ThreatModel("L2", settings.eps)
    device, size = i.images.device, 2.5 * settings.eps / settings.attack_steps
    method, stage = second_stage(settings)
    method.curriculum.steps = settings.steps
    optimizer, average = build_optimizer(trained, stage.optimizer), EMA(trained, 0.999)
    batch = Batch(i.images, i.labels, i.real, i.labels, i.starts)

    def step() -> None:
        train_step(trained, method, batch, optimizer, 1e-3, stage, dtype, loops[1])
        average.update(trained)

    def sample(steps: int = settings.steps) -> Tensor:
        with autocast(dtype, device):
            return loops[0].climb(i.starts, lower_energy(i.labels), steps=steps, step_size=STEP_SIZE)

    def perturb() -> Tensor:
        objective = raise_cross_entropy(i.labels)
        with autocast(dtype, device):
            return loops[0].climb(i.images, objective, threat, steps=settings.attack_steps, step_size=size)

    def classify() -> Tensor:
        with frozen(model), torch.no_grad(), autocast(dtype, device):
            return model(i.images)

    works: Works = {"train_step": step, "sampling": sample, "attack": perturb, "classification": classify}
    works["comparison"] = lambda: sample(max(TWENTY, settings.steps))
    works["fell_back"] = lambda: compile_loop and not all(loop.compiled for loop in loops)
    return within(precision, device, works)
