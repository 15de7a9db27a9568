"""What a configuration allows and probably does not mean, said before a run."""

import torch

from dualat.config import RunConfig
from dualat.data.distance import distance_to_data, path_warning
from dualat.data.distributions import InitialDistribution
from dualat.data.in_distribution import ImageData
from dualat.methods.registry import row_of
from dualat.models.batchnorm import batchnorm_modules
from dualat.models.model import LoadedModel


def run_warnings(config: RunConfig, model: LoadedModel, data: ImageData) -> list[str]:
    """What is allowed and probably not meant, a sentence each."""
    texts = [
        f"stage{number}.batch_size is {stage.batch_size}, but there are {len(data)} training images: "
        "every step takes all of them."
        for number, stage in sorted(config.stages.items())
        if stage.batch_size > len(data)
    ]
    for number, stage in sorted(config.stages.items()):
        frozen_needed = not row_of(stage.method.name).batch_statistics
        if frozen_needed and not stage.freeze_batchnorm and batchnorm_modules(model):
            texts.append(
                f"{stage.method.name} is published without statistics of the batch, but BatchNorm is in train mode: add "
                f"--stage{number}.freeze-batchnorm."
            )
    return [*texts, *path_warnings(config, model.initial, data)]


def path_warnings(config: RunConfig, initial: InitialDistribution | None, data: ImageData) -> list[str]:
    """A warning where T_max * eta cannot carry the initial distribution to the data, for each stage with a curriculum."""
    groups = [getattr(stage.method, "contrastive", None) for _, stage in sorted(config.stages.items())]
    paths = [group.t_max * group.step_size for group in groups if group is not None]
    if initial is None or not paths:
        return []
    count = 200
    labels = data.labels[torch.arange(count) * len(data) // count]
    starts = initial.sample(count, labels, torch.Generator().manual_seed(0))
    distance = distance_to_data(starts, data)
    return [text for path in paths if (text := path_warning(path, distance))]
