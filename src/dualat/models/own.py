"""Any nn.Module as a model: what a bare module does not tell (classes, image shape, what its samples start from) is added."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from dualat.core.classifier import device_of, logits_of
from dualat.core.loop import frozen
from dualat.core.sampler_settings import SamplingSettings
from dualat.data.images import ImageData, Shape
from dualat.data.starts import Start, Starts, start_from
from dualat.models.model import LoadedModel, ModelDescription, bare, save_model


def count_classes(model: nn.Module, shape: Shape) -> int:
    """Number K of logits that the model gives of an image of `shape` (C, H, W), at least 2.

    Raises:
        ValueError: it cannot take such an image, does not give logits (N, K), or has state that is no tensor.
    """
    if isinstance(model, LoadedModel):
        return len(model.class_names)
    if odd := [name for name, value in model.state_dict().items() if not isinstance(value, Tensor)]:
        raise ValueError(f"the model's state holds {odd[0]}, which is no tensor: keep it out of state_dict.")
    try:
        with frozen(model), torch.no_grad():
            logits = logits_of(model, torch.zeros(2, *shape, device=device_of(model)))
    except RuntimeError as error:
        text = " ".join(str(error).split()).rstrip(".")
        raise ValueError(f"the model cannot take images of shape {tuple(shape)}: {text}.") from error
    if logits.dim() != 2 or len(logits) != 2 or logits.shape[1] < 2:
        raise ValueError(
            f"the model's logits of 2 images must be of shape (2, K) with 2 classes or more, not {tuple(logits.shape)}."
        )
    return logits.shape[1]


def as_model(
    model: nn.Module,
    shape: Shape,
    class_names: Sequence[str] | None = None,
    *,
    initial: Start | None = None,
    sampling: SamplingSettings | None = None,
    train: ImageData | None = None,
) -> LoadedModel:
    """A bare module with what it lacks; a model that `dualat.load` gave as it is, but for what is given here.

    Weights are shared with the module, which stays as it is.

    Args:
        model: maps images (N, C, H, W) in [0, 1] to logits (N, K); normalisation of inputs is part of it.
        shape: (C, H, W) of its images.
        class_names: K names; None: the numbers 0 to K - 1.
        initial: what samples start from; None: nothing, or the model's own.
        sampling: how they descend; None: the defaults, or the model's own.
        train: training images, that the kinds "gaussian" and "class-gaussian" are fitted to.

    Raises:
        ValueError: the module does not take such images, has another number of classes, or `initial` cannot be had.
    """
    if not isinstance(model, LoadedModel):
        classes = count_classes(model, shape)
        names = [str(k) for k in range(classes)] if class_names is None else list(class_names)
        if len(names) != classes:
            raise ValueError(f"the model gives {classes} logits, but there are {len(names)} classes.")
        model = LoadedModel(bare(model), ModelDescription(None, names, shape, normalized=False), None)
    description, start = model.description, model.initial
    if initial is not None:
        start, settings = start_from(initial, model.shape, train)
        if isinstance(start, Starts):
            raise ValueError(
                "initial is a tensor of starts, but a model draws as many as are wanted: pass a distribution, as in "
                "dualat.data.initial, or its settings."
            )
        description = replace(description, initial=settings)
    if sampling is not None:
        description = replace(description, sampling=sampling)
    same = (description, start) == (model.description, model.initial)
    return model if same else LoadedModel(model.network, description, start)


def own_copy(network: nn.Module, description: ModelDescription) -> nn.Module:
    """A copy of somebody's network to train, checked against what is known of its images.

    Raises:
        ValueError: it does not take them, has another number of classes, or no weights to train.
    """
    network = bare(network)
    if not any(weight.requires_grad for weight in network.parameters()):
        raise ValueError(
            "the network has no weights to train: give one with parameters that require gradients."
        )
    check_logits(network, description)
    return copy.deepcopy(network)


def check_logits(network: nn.Module, description: ModelDescription) -> None:
    """ValueError where somebody's network does not take the images, or has another number of logits than the data classes."""
    if (classes := count_classes(network, description.shape)) != len(description.class_names):
        raise ValueError(
            f"the network gives {classes} logits, but the data has {len(description.class_names)} classes."
        )


def save(
    model: nn.Module,
    path: str | Path,
    *,
    shape: Shape | None = None,
    class_names: Sequence[str] | None = None,
    initial: Start | None = None,
    sampling: SamplingSettings | None = None,
) -> Path:
    """Write a model, as `dualat.load` reads it again: weights and description, no code.

    Args:
        model: what `dualat.load` gave, or a bare module, which `dualat.load(path, network=my_module)` needs again.
        path: of the .safetensors file; a .json with the description for people is written beside it.
        shape: (C, H, W) of the images; a bare module does not tell it.
        class_names, initial, sampling: see `as_model`; they stay with the model.

    Returns:
        The path of the weights.

    Raises:
        ValueError: the shape is missing, or something does not fit, or cannot be kept in a file.
    """
    if isinstance(model, LoadedModel):
        if class_names is not None or (shape is not None and tuple(shape) != model.shape):
            raise ValueError(
                "class_names and shape are for a bare module, and this model has its own: leave them out."
            )
        shape = model.shape
    if shape is None:
        raise ValueError("a bare module does not tell the shape of its images: pass shape=(C, H, W).")
    model = as_model(model, shape, class_names, initial=initial, sampling=sampling)
    if model.initial is not None and model.description.initial is None:
        raise ValueError(
            f"an initial distribution {type(model.initial).__name__} cannot be kept in a file: leave it out, and pass it "
            "to dualat.sample."
        )
    path = Path(path)
    name = path.name.removesuffix(".safetensors")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_model(model, path.with_name(name))
    return path.with_name(f"{name}.safetensors")
