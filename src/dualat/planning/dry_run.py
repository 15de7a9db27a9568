"""What a run on this machine and its data would be: `dualat train RECIPE --dry-run`. `dualat plan` (plan.py) needs neither."""

import math
import time
from typing import Any

from dualat.config import RunConfig
from dualat.data.in_distribution import Splits
from dualat.run.model import new_model
from dualat.run.stages import checked_stages
from dualat.run.warnings import run_warnings
from dualat.system.precision import choose_device, choose_dtype, deterministic
from dualat.training.feed import Feed
from dualat.training.optimizer import build_optimizer
from dualat.training.step import train_step


def preview(config: RunConfig, splits: Splits) -> dict[str, Any]:
    """What a run would be, without running it: model size, steps, distance to the data, and an estimated time.

    The time is measured on one step of each stage's kind (T at half of T_max) and scaled up.
    """
    device = choose_device(config.device)
    dtype = choose_dtype(config.precision, device)
    model = new_model(config, splits.train, device)
    feed = Feed(splits.train, config.robust_augment, config.energy_augment, model.initial, device)
    facts: dict[str, Any] = {
        "parameters": sum(p.numel() for p in model.parameters()),
        "images": {
            "train": len(splits.train),
            "validation": len(splits.validation),
            "test": len(splits.test),
        },
        "shape": list(splits.train.shape),
        "classes": len(splits.train.class_names),
        "device": str(device),
        "precision": str(dtype).removeprefix("torch."),
    }
    seconds = 0.0
    for number, method, settings in checked_stages(config, splits.train):
        streams = feed.streams(config.seed, number, settings.batch_size)
        total = settings.length(streams[0].steps_per_epoch)
        if method.curriculum is not None:
            method.curriculum.steps = method.curriculum.t_max // 2
        optimizer = build_optimizer(model, settings.optimizer)
        times = []
        for step in range(3):
            batch = feed.batch(streams, step, step, method.needs_energy_batch)
            began = time.perf_counter()
            with deterministic(config.deterministic):
                train_step(model, method, batch, optimizer, settings.optimizer.lr * 1e-3, settings, dtype)
            times.append(time.perf_counter() - began)
        facts[f"stage{number}"] = {
            "method": method.name,
            "steps": total,
            "epochs": round(total / streams[0].steps_per_epoch, 2),
            "seconds_per_step": round(sorted(times)[1], 4),
            "minutes": round(total * sorted(times)[1] / 60, 1),
        }
        seconds += total * sorted(times)[1]
    facts["minutes"] = math.ceil(seconds / 6) / 10
    if texts := run_warnings(config, model, splits.train):
        facts["warning"] = " ".join(texts)
    return facts
