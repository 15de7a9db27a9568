"""Throughput: images per second of classification, attack and sampling on this machine, in the model's precision.

    throughput = median over repeats of  images finished / seconds,  after a warm-up

Moving images to the device is not timed. A clock is read only when the accelerator has finished.
Source: DAT (arXiv 2510.13872) reports images per second when sampling.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from dualat.core.classifier import logits_of, precision_of
from dualat.core.geometry import ThreatModel
from dualat.core.loop import frozen, pgd
from dualat.core.objectives import lower_energy, raise_cross_entropy
from dualat.data.images import ImageData
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.logits import attack_step_size, batches
from dualat.results.record import Record
from dualat.system.devices import device_name


def measure(context: EvaluationContext) -> list[Record]:
    model, settings = context.required_model, context.settings
    threat = ThreatModel(settings.norm, settings.validation_eps)
    records = throughput_records(
        model,
        context.held_out(200),
        threat,
        settings.steps,
        max(1, model.sampling.steps),
        sampling_step_size=model.sampling.step_size,
        seed=context.seed,
    )
    return [replace(record, split="") for record in records]


def throughput_records(
    model: nn.Module,
    data: ImageData,
    threat: ThreatModel,
    attack_steps: int,
    sampling_steps: int,
    *,
    sampling_step_size: float = 0.1,
    batch_size: int = 100,
    repeats: int = 3,
    seconds_each: float = 1.5,
    seed: int = 0,
) -> list[Record]:
    """Records `throughput` of classification, of a PGD attack, and of sampling from uniform noise.

    Args:
        data: images to classify and attack; repeated where they are fewer than batch_size.
        threat, attack_steps: PGD on the cross-entropy, steps of 2.5 * eps / attack_steps.
        sampling_steps, sampling_step_size: descent of the joint energy, class-balanced labels.
        repeats: timings taken, at least 3; the value is their median.
        seconds_each: each runs batch after batch for this long or longer.
        seed: of the noise that sampling starts from.
    """
    _check(data, repeats, seconds_each, batch_size, sampling_steps)
    size = attack_step_size(threat, attack_steps)
    batch = data.take(torch.arange(batch_size) % len(data))
    (x,) = batches(model, batch, batch_size)
    labels = batch.labels.to(x.device)
    generator = torch.Generator().manual_seed(seed)
    noise = torch.rand(x.shape, generator=generator, dtype=torch.float32).to(x.device)
    wanted = (torch.arange(batch_size) % len(data.class_names)).to(x.device)

    def classify() -> None:
        with frozen(model), torch.no_grad():
            logits_of(model, x)

    def attack() -> None:
        pgd(model, x, raise_cross_entropy(labels), threat, steps=attack_steps, step_size=size)

    def sample() -> None:
        pgd(model, noise, lower_energy(wanted), steps=sampling_steps, step_size=sampling_step_size)

    settings = {"device": device_name(x.device), "threads": torch.get_num_threads()}
    if x.device.type == "cuda":  # convolutions in fp32 may run in TF32
        settings["tf32"] = torch.backends.cudnn.allow_tf32
    settings |= {"precision": precision_of(model), "batch_size": batch_size, "seconds_each": seconds_each}
    ball = {"norm": threat.norm, "eps": threat.eps}
    tasks: dict[str, tuple[Callable[[], None], dict[str, Any]]] = {
        "classification": (classify, {"steps": 0}),
        "attack": (attack, {"steps": attack_steps, "step_size": size, **ball}),
        "sampling": (sample, {"steps": sampling_steps, "step_size": sampling_step_size}),
    }
    records = []
    for name, (work, own) in tasks.items():
        speeds, count = _speeds(work, x.device, batch_size, repeats, seconds_each)
        record = Record(
            "throughput", statistics.median(speeds), count, seed=seed if name == "sampling" else None
        )
        record.settings = {"task": name, **own, **settings}
        record.details = {"repeats": [float(f"{speed:.5g}") for speed in speeds]}
        records.append(record)
    return records


def _speeds(
    work: Callable[[], None], device: torch.device, batch_size: int, repeats: int, seconds: float
) -> tuple[list[float], int]:
    """Images per second of each repeat, and the number of images timed in all."""

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter()

    work()  # warm-up: memory, kernels and algorithms are chosen on the first call
    speeds, count = [], 0
    for _ in range(repeats):
        began, done = clock(), 0
        while (spent := clock() - began) < seconds or not done:
            work()
            done += batch_size
        speeds.append(done / spent)
        count += done
    return speeds, count


def _check(data: ImageData, repeats: int, seconds_each: float, batch_size: int, sampling_steps: int) -> None:
    if repeats < 3 or not seconds_each > 0 or batch_size < 1 or sampling_steps < 1:
        raise ValueError(
            "throughput needs 3 repeats or more, seconds above 0, and a batch size and sampling steps of 1 or "
            f"more, not {repeats}, {seconds_each}, {batch_size} and {sampling_steps}."
        )
    if not len(data):
        raise ValueError(f"{data.name} holds no images: give at least one.")
