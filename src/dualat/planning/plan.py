"""What a run would take, before anything is spent: `dualat plan RECIPE`.

Neither a GPU nor the data is needed: the network is built without weights, the training step is done on tensors without
data, and files are looked for, not read.
"""

from dataclasses import asdict, replace
from typing import Any

import torch

from dualat.config import RunConfig
from dualat.core.loop import frozen
from dualat.data.in_distribution import ImageData
from dualat.models.checkpointing import blocks
from dualat.models.model import LoadedModel, ModelDescription
from dualat.models.registry import build_network
from dualat.planning.data import DataFacts, data_facts
from dualat.planning.hardware import Hardware, find_hardware, recognise
from dualat.planning.memory import disk, initial_bytes, too_large
from dualat.planning.needs import Need, data_needs, initial_needs, source_need, weights_needs
from dualat.planning.observe import META, observe
from dualat.planning.settings import PlanSettings
from dualat.planning.speed import Measured, Speed, read_measured
from dualat.planning.stage import UNCOUNTED, Stage, see_stage, stage_row
from dualat.run.stages import stage_plan


def plan(config: RunConfig, settings: PlanSettings) -> dict[str, Any]:
    """Network, operations, memory per GPU, time, cost, disk and files that a run takes.

    Returns:
        Plain values under network, hardware, images, stages (one each), total, disk, needs and warnings; in bytes,
        seconds (hours where it says so) and operations. `guess` is with T at half of T_max, `most` with T at T_max.

    Raises:
        ValueError, FileNotFoundError: settings that cannot work together; the sentence says what to do.
    """
    images = data_facts(config.data, settings.train_images, settings.classes)
    hardware, measured = choose_hardware(config, settings, images)
    precision = choose_precision(config, hardware)
    model = bare_model(config, images)
    parts = stage_plan(config, stand_in(images))
    stages = [see_stage(config, model, part, images, settings.gpus, precision, hardware) for part in parts]
    last = stages[-1]
    speed = Speed(hardware, precision, settings, measured, last.cost.flops(last.guess))
    rows = [stage_row(stage, speed) for stage in stages]
    wanted = needs(config)
    return {
        "network": network_row(config, model, images),
        "hardware": {
            "gpu": hardware.name,
            "title": hardware.title,
            "gpus": settings.gpus,
            "precision": precision,
            "peak_flops": hardware.peaks[precision],
            "memory": hardware.memory,
            "source": hardware.source,
            "speed": speed.origin,
        },
        "images": {"train": images.train, "origin": images.origin},
        "stages": rows,
        "total": {name: total_row(rows, name, settings) for name in ("guess", "most")},
        "disk": disk_row(config, model, stages, images, wanted),
        "needs": [asdict(need) for need in wanted],
        "warnings": warnings(config, model, stages, hardware, wanted),
    }


def choose_hardware(
    config: RunConfig, settings: PlanSettings, images: DataFacts
) -> tuple[Hardware, Measured | None]:
    """The GPU, and its benchmark where one is given. ValueError where they, or it and the recipe, do not go together."""
    if settings.measured is None:
        return find_hardware(settings.gpu or "h100"), None
    asked = None if settings.gpu is None else find_hardware(settings.gpu)
    fp32 = config.precision == "fp32" or (asked is not None and "bf16" not in asked.peaks)
    measured = read_measured(settings.measured, "fp32" if fp32 else "bf16", config.compile != "off")
    if (measured.network, measured.shape) != (config.network.name, images.shape):
        shapes = ("x".join(map(str, shape)) for shape in (measured.shape, images.shape))
        raise ValueError(
            f"{measured.file} is of {measured.network} with images of {next(shapes)}, but the recipe has "
            f"{config.network.name} with {next(shapes)}: time that with `dualat bench --network {config.network.name} "
            f"--channels {images.shape[0]} --image-size {images.shape[1]} --output FILE`."
        )
    found = recognise(measured.device) or find_hardware("cpu")
    if asked is not None and asked is not found:
        raise ValueError(
            f"--gpu is {asked.name}, but {measured.file} was measured on {measured.device}: leave --gpu out, or give "
            "another benchmark."
        )
    return found, measured


def choose_precision(config: RunConfig, hardware: Hardware) -> str:
    """The precision that a run has on this device. ValueError: it lacks the one asked for."""
    if config.precision == "auto":
        return "bf16" if "bf16" in hardware.peaks else "fp32"
    if config.precision not in hardware.peaks:
        raise ValueError(
            f"precision is {config.precision}, for which {hardware.title} has no units: give --precision fp32."
        )
    return config.precision


def stand_in(images: DataFacts) -> ImageData:
    """Images of which number, shape and classes are known, and nothing else."""
    count = images.train or UNCOUNTED
    names = tuple(map(str, range(images.classes)))
    labels = torch.zeros(1, dtype=torch.int64).expand(count)
    pixels = torch.empty(count, *images.shape, dtype=torch.uint8, device=META)
    return ImageData(pixels, labels, names, "images that are not here")


def bare_model(config: RunConfig, images: DataFacts) -> LoadedModel:
    """The network as a run builds it, without weights, and without fetching any."""
    channels, normalized = images.shape[0], config.network.normalize == "data"
    names = [str(k) for k in range(images.classes)]
    description = ModelDescription(config.network, names, images.shape, normalized)
    statistics = ([0.5] * channels, [0.25] * channels) if normalized else (None, None)
    settings = replace(config.network, pretrained=False)
    with META:
        return LoadedModel(
            build_network(settings, images.shape, images.classes, *statistics), description, None
        )


def total_row(rows: list[dict[str, Any]], name: str, settings: PlanSettings) -> dict[str, float | None]:
    """Hours of all stages, and what they cost."""
    hours = sum(row[name]["hours"] for row in rows)
    price = settings.price_per_hour
    cost = None if price is None else hours * settings.gpus * price
    return {"hours": hours, "gpu_hours": hours * settings.gpus, "cost": cost}


def network_row(config: RunConfig, model: LoadedModel, images: DataFacts) -> dict[str, Any]:
    """The network as plain values."""
    with frozen(model), torch.no_grad():
        flops = observe(lambda: model(torch.empty(1, *images.shape, device=META))).flops
    return {
        "name": config.network.name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "shape": list(images.shape),
        "classes": images.classes,
        "forward_flops_per_image": flops,
    }


def disk_row(
    config: RunConfig, model: LoadedModel, stages: list[Stage], images: DataFacts, wanted: list[Need]
) -> dict[str, float]:
    """The disk as plain values."""
    state = sum(t.numel() * t.element_size() for t in model.state_dict().values())
    size = images.shape[0] * images.shape[1] * images.shape[2]
    chains = [getattr(stage.method, "chain", None) for stage in config.stages.values()]
    buffer = max(4 * size * chain.buffer if chain is not None else 0 for chain in chains)
    return disk(
        state,
        max(stage.memory.optimizer for stage in stages),
        buffer,
        initial_bytes(config.initial, images.shape, images.classes),
        sum(stage.steps for stage in stages) / config.tracking.log_every,
        sum(need.download for need in wanted),
    )


def needs(config: RunConfig) -> list[Need]:
    """All files that a run needs."""
    found = [
        *weights_needs(config.weights, config.network),
        *data_needs(config.data),
        *initial_needs(config.initial),
    ]
    reference = config.evaluation.reference
    if reference not in ("test", "train") and not reference.endswith(".npz"):
        found.append(source_need("images that samples are compared with", reference, None, False))
    return found


def warnings(
    config: RunConfig,
    model: LoadedModel,
    stages: list[Stage],
    hardware: Hardware,
    wanted: list[Need],
) -> list[str]:
    """What stands in the way, and what to do about it."""
    can_checkpoint = not config.network.checkpoint_activations and any(True for _ in blocks(model))
    found = []
    for stage in stages:
        room = hardware.memory
        if room is not None and stage.memory.total > room:
            at_work = stage.cost.images
            found.append(
                too_large(
                    stage.memory, stage.number, hardware.title, room, at_work, stage.share, can_checkpoint
                )
            )
    for need in wanted:
        if not need.there:
            found.append(f"{need.what}: {need.where} is not there; {need.advice.rstrip('.')}.")
    if hardware.memory is None:
        found.append(
            "on a CPU that is here, `dualat train RECIPE --dry-run` times a step of each stage instead."
        )
    return found
