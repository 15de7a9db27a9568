"""The network that a run begins with."""

import copy

import torch
from torch import nn

from dualat.config import RunConfig
from dualat.data.images import channel_statistics
from dualat.data.in_distribution import ImageData
from dualat.data.initial import build_initial
from dualat.models.model import LoadedModel, ModelDescription, build_model, copy_weights, load, placed
from dualat.models.own import check_logits, own_copy


def new_model(
    config: RunConfig, data: ImageData, device: torch.device, network: nn.Module | None = None
) -> LoadedModel:
    """The network, on the device, with fresh weights, or with those of `config.weights`; or a copy of somebody's own."""
    mean, std = channel_statistics(data)
    initial = build_initial(config.initial, data.shape, data)
    description = ModelDescription(
        network=config.network if network is None else None,
        class_names=list(data.class_names),
        shape=data.shape,
        normalized=config.network.normalize == "data",
        initial=config.initial,
        sampling=config.sampling,
        data=config.data,
        train_sha256=data.content,
    )
    if network is None:
        model = build_model(description, initial, mean, std)
        if config.network.is_own:
            check_logits(model.network, description)
    else:
        model = LoadedModel(own_copy(network, description), description, initial)
    if config.weights is not None:
        given = load(config.weights, network=copy.deepcopy(network))
        if list(given.class_names) != list(model.class_names):
            raise ValueError(
                f"the weights in {config.weights} know the classes {', '.join(given.class_names[:5])} ..., "
                f"but the data has {', '.join(model.class_names[:5])} ...."
            )
        copy_weights(model, given.state_dict(), config.weights)
    return placed(model, device)
