"""From somebody's file of weights to a network of ours that gives the same logits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dualat.models.import_weights.files import guarded, read_file
from dualat.models.import_weights.guess import (
    candidates,
    channels_of,
    classes_of,
    counter,
    first_layer,
    guess_network,
    image_size_of,
    shapes_of,
    wide_resnet_name,
)
from dualat.models.import_weights.names import Family, Tensors, origin, translate
from dualat.models.import_weights.settings import STATISTICS, ImportSettings
from dualat.models.import_weights.skeleton import NoValues, Shapes, counted, differences, skeleton_shapes
from dualat.models.import_weights.states import State, find_state
from dualat.models.normalize import Normalized
from dualat.models.registry import build_network
from dualat.models.settings import NetworkSettings, check_statistics
from dualat.system.pickles.values import Refused, StoredTensor

Normalisation = tuple[list[float], list[float]] | tuple[None, None]


class Mismatch(ValueError):
    """Weights that do not fit the network. `lines` has one line per key: what is missing, unexpected, of another shape."""

    def __init__(self, sentence: str, lines: list[str]):
        super().__init__(sentence)
        self.lines = lines


@dataclass(eq=False)
class Imported:
    """A network with somebody's weights.

    Attributes:
        network: logits (N, K) of images (N, C, H, W) in [0, 1], normalisation included; in eval mode.
        settings: what network it is.
        shape: (C, H, W) of its images.
        classes: number of logits K.
        normalized: whether it normalises its input.
        origin: whose file it was recognised as.
        part, other_parts: part of the file that was taken, and the others with weights.
        notes: what was changed on the way, for people.
    """

    network: nn.Module
    settings: NetworkSettings
    shape: tuple[int, int, int]
    classes: int
    normalized: bool
    origin: str
    part: str
    other_parts: list[str]
    notes: list[str] = field(default_factory=list)


def import_network(path: Path | str, settings: ImportSettings | None = None) -> Imported:
    """Read a file of weights, recognise it by its content, and put the weights into our network.

    Raises:
        FileNotFoundError: no such file.
        Mismatch: the weights do not fit the network; its lines name every key.
        ValueError: the file is damaged, holds no weights, or does not say what the settings leave open.
    """
    path, settings = Path(path), settings or ImportSettings()
    content = read_file(path)
    with guarded(path):
        state = find_state(content, settings.part)
        family, tensors, follows = translate(state.tensors)
        if sum(math.prod(tensor.shape) for tensor in tensors.values()) > path.stat().st_size:
            raise Refused("its weights claim more numbers than the file holds")
        file_pixels = pixels_of(state)
    try:
        refuse_open_questions(settings, shapes_of(tensors), file_pixels or family.pixels)
        chosen, shape, classes = network_of(settings, shapes_of(tensors), follows)
        pixels = normalisation_of(settings, file_pixels, family, shape[0])
    except Refused as error:
        raise ValueError(f"{path} cannot be imported: {error}.") from error
    chosen.normalize = "none" if pixels[0] is None else "data"
    own = skeleton_shapes(chosen, shape, classes)
    notes = resample_positions(tensors, own)
    found = shapes_of(tensors)
    refuse_mismatch(path, chosen.name, own, found, other_network(chosen.name, found, shape, classes))
    with NoValues():
        network = build_network(chosen, shape, classes, *pixels)
    with guarded(path):
        fill(network.network if isinstance(network, Normalized) else network, tensors)
    return Imported(
        network.eval(),
        chosen,
        shape,
        classes,
        pixels[0] is not None,
        origin(state.marks, family),
        state.part,
        state.other_parts,
        notes,
    )


def refuse_open_questions(settings: ImportSettings, shapes: Shapes, told_pixels: object) -> None:
    """Raises Refused with all that neither the weights nor the settings say."""
    known_kind = wide_resnet_name(shapes) or any(candidates(shapes))
    questions = [
        (
            "what network they are of",
            "--network, as in --network timm/resnet50",
            settings.network or known_kind,
        ),
        ("how many classes there are", "--classes", settings.classes or classes_of(shapes)),
        (
            "how large the images are",
            "--image-size, as in --image-size 256",
            settings.image_size or image_size_of(shapes),
        ),
        (
            "whether the input is normalised",
            "--normalize cifar, imagenet, half or none (or --mean and --std)",
            settings.normalize or settings.mean or told_pixels,
        ),
    ]
    if asked := [(what, option) for what, option, answer in questions if not answer]:
        unknown, options = (" and ".join(texts) for texts in zip(*asked, strict=True))
        raise Refused(f"its weights do not tell {unknown}: give {options}")


def network_of(
    settings: ImportSettings, shapes: Shapes, follows: dict[str, Any]
) -> tuple[NetworkSettings, tuple[int, int, int], int]:
    """Network, shape (C, H, W) of its images, and number of classes: as asked for, else as the weights tell."""
    rows = classes_of(shapes)
    classes = settings.classes or rows
    assert classes is not None
    if rows is not None and rows != classes:
        raise Refused(f"its last layer has {rows} classes, and {classes} are asked for: leave --classes out")
    if classes < 2:
        raise Refused(f"its last layer has {classes} rows, and a classifier has at least 2")
    size = settings.image_size or image_size_of(shapes)
    assert size is not None
    channels = channels_of(shapes, first_layer(shapes, settings.network, classes, size))
    if channels < 1:
        raise Refused("its first convolution has no inputs")
    name = settings.network or guess_network(shapes, classes, channels, size)
    wanted = dict(follows) if name.startswith("wrn-") else {}
    if settings.activation is not None:
        if not name.startswith("wrn-"):
            raise Refused(f"--activation chooses that of a wide ResNet, and this is {name}: leave it out")
        wanted["activation"] = settings.activation
    return NetworkSettings(name=name, **wanted), (channels, size, size), classes


def pixels_of(state: State) -> tuple[list[float], list[float]] | None:
    """Mean and standard deviation that are in the file, whatever they are; None where there are none."""
    if state.mean is None or state.std is None:
        return None
    mean, std = (part.load().double().flatten().tolist() for part in (state.mean, state.std))
    return mean, std


def normalisation_of(
    settings: ImportSettings,
    file_pixels: tuple[list[float], list[float]] | None,
    family: Family,
    channels: int,
) -> Normalisation:
    """Mean and standard deviation per channel: as asked for, else the file's own, else those that the family's code fixes.

    Raises Refused where the file's own make no sense.
    """
    if settings.normalize == "none":
        return None, None
    if settings.mean:
        mean, std = settings.mean, settings.std
    elif settings.normalize is not None:
        mean, std = STATISTICS[settings.normalize]
    elif file_pixels is not None:
        mean, std = file_pixels
        refuse_senseless(mean, std)
    else:
        assert family.pixels is not None
        mean, std = (family.pixels[0],), (family.pixels[1],)
    if not {len(mean), len(std)} <= {1, channels}:
        raise Refused(
            f"normalisation has {len(mean)} means and {len(std)} standard deviations for {channels} channels"
        )
    spread = [channels // len(mean), channels // len(std)]
    return list(mean) * spread[0], list(std) * spread[1]


def refuse_senseless(mean: Sequence[float], std: Sequence[float]) -> None:
    """Raises Refused for a file's normalisation that no images in [0, 1] have."""
    try:
        check_statistics(mean, std)
    except ValueError as error:
        raise Refused(f"its normalisation makes no sense: {str(error).rstrip('.')}") from error
    if not mean or not std:
        raise Refused("its normalisation makes no sense: it has no numbers")


def resample_positions(tensors: Tensors, own: Shapes) -> list[str]:
    """Bring a ViT's positions to another image size, in place (bicubic, as timm does). Returns what was done."""
    name, found, wanted = "pos_embed", tensors.get("pos_embed"), own.get("pos_embed")
    if found is None or wanted is None or found.shape == wanted or found.shape[::2] != wanted[::2]:
        return []
    from timm.layers import resample_abs_pos_embed  # pyright: ignore[reportPrivateImportUsage]

    old, new = (math.isqrt(max(shape[1] - 1, 0)) for shape in (found.shape, wanted))
    if not old or (old**2, new**2) != (found.shape[1] - 1, wanted[1] - 1):
        return []
    tensors[name] = StoredTensor(
        wanted, lambda: resample_abs_pos_embed(found.load().float(), [new, new], [old, old])
    )
    return [f"positions resampled from {old}x{old} to {new}x{new} patches"]


def other_network(name: str, shapes: Shapes, shape: tuple[int, int, int], classes: int) -> str:
    """The network that these weights are of, if it is known and not `name`; else nothing."""
    try:
        found = guess_network(shapes, classes, shape[0], shape[1])
    except Refused:
        return ""
    return "" if found == name else found


def refuse_mismatch(path: Path, name: str, own: Shapes, found: Shapes, other: str) -> None:
    """Raises Mismatch where a key is missing, unexpected, or of another shape. other: the network that they seem to be."""
    if not (wrong := differences(own, found, counter)):
        return
    lines = {
        "missing": lambda key: f"missing     {key} {own[key]}",
        "unexpected": lambda key: f"unexpected  {key!r} {found[key]}",
        "of another shape": lambda key: (
            f"shape       {key} {found[key]} in the file, {own[key]} in the network"
        ),
    }
    advice = f"they are those of {other}" if other else "name another network by --network"
    raise Mismatch(
        f"the weights in {path} do not fit {name}: {counted(wrong)}; {advice}.",
        [lines[what](key) for what, keys in wrong.items() for key in keys],
    )


def fill(network: nn.Module, tensors: Tensors) -> None:
    """Copy the weights, one tensor at a time, in the network's own type. Raises Refused where one is not finite."""
    with torch.no_grad():
        for name, value in network.state_dict().items():
            if name in tensors:
                value.copy_(tensors[name].load())
                if not value.sum(dtype=torch.float64).isfinite():  # a NaN or an infinity reaches the sum
                    raise Refused(f"its weights hold numbers that are not finite, the first in {name}")
