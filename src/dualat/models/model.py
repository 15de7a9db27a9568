"""A model on disk: `model.safetensors` (weights, and the initial distribution's numbers) and `model.json` (what it is).

The description is stored in the header of model.safetensors, which `load` reads; model.json is a copy for people.

Nothing but tensors and JSON is ever read, so that a file from a stranger cannot run anything.
"""

import json
from contextlib import suppress
from dataclasses import asdict, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from dualat import __version__
from dualat.core.energy import JointEnergyModel
from dualat.core.sampler_settings import SamplingSettings
from dualat.data.distributions import InitialDistribution
from dualat.data.initial import part_of, restore_initial
from dualat.data.settings import DataSettings, InitialSettings
from dualat.models.import_weights.skeleton import NoValues, counted, differences
from dualat.models.registry import build_network
from dualat.models.settings import NetworkSettings
from dualat.models.shipped import shipped_file, shipped_models
from dualat.strict import strict
from dualat.system.files import atomic_path, write_text
from dualat.system.plugins import LOAD


@strict
class ModelDescription:
    """Everything but the weights: the header of model.safetensors, and its readable copy model.json."""

    network: NetworkSettings | None
    """None: somebody's own, which no file can build; `load` is given it."""
    class_names: list[str]
    shape: tuple[int, int, int]
    normalized: bool
    initial: InitialSettings | None = None
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    data: DataSettings | None = None
    """What it was trained on, so that its held-out images can be found again."""
    train_sha256: str = ""
    """Content of the training split: where it is another one, its test images may have been trained on."""
    dualat_version: str = __version__


class LoadedModel(JointEnergyModel):
    """A JointEnergyModel that knows its classes, its image shape, and how it is sampled."""

    def __init__(
        self, network: nn.Module, description: ModelDescription, initial: InitialDistribution | None
    ):
        super().__init__(network)
        self.description = description
        self.initial = initial

    @property
    def class_names(self) -> list[str]:
        return self.description.class_names

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the images that it was trained on."""
        return self.description.shape

    @property
    def sampling(self) -> SamplingSettings:
        return self.description.sampling

    @property
    def required_initial(self) -> InitialDistribution:
        """What its own samples start from, by default all of its initial distribution; a ValueError where there is none."""
        if self.initial is None:
            raise ValueError(
                "this model carries no initial distribution that samples could start from: pass one, as in initial='uniform'."
            )
        return self.initial if self.sampling.start is None else part_of(self.initial, self.sampling.start)

    @property
    def initial_kind(self) -> str:
        """Kind of what its own samples start from, for records; the class's name of somebody's own, and none without any."""
        if self.description.initial is not None:
            return self.sampling.start or self.description.initial.kind
        return "none" if self.initial is None else type(self.initial).__name__

    @property
    def initial_settings(self) -> InitialSettings:
        return self.description.initial or InitialSettings()


def build_model(
    description: ModelDescription,
    initial: InitialDistribution | None,
    mean: list[float] | None,
    std: list[float] | None,
) -> LoadedModel:
    """A model with fresh weights. mean, std: per channel, used where the description says `normalized`."""
    if not description.normalized:
        mean = std = None
    assert description.network is not None
    network = build_network(description.network, description.shape, len(description.class_names), mean, std)
    return LoadedModel(network, description, initial)


def save_model(model: LoadedModel, path: Path | str, weights: dict[str, Tensor] | None = None) -> None:
    """Write PATH.safetensors and PATH.json, both atomically, the weights last.

    weights: state dict to write in place of the model's own (the EMA's).
    """
    path = Path(path)
    tensors = {f"weights.{k}": v for k, v in (weights or model.state_dict()).items()}
    if model.initial is not None and model.description.initial is not None:
        tensors |= {f"initial.{k}": v for k, v in model.initial.state().items()}
    # copies: two names of one tensor, as of tied weights, cannot be written
    tensors = {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}
    description = json.dumps(asdict(model.description), indent=2)
    write_text(path.with_name(f"{path.name}.json"), description + "\n")
    with atomic_path(path.with_name(f"{path.name}.safetensors")) as temporary:
        save_file(tensors, temporary, metadata={"dualat": description})


def load(
    source: str | Path, device: str | torch.device = "cpu", *, network: nn.Module | None = None
) -> LoadedModel:
    """A trained model, in eval mode.

    Args:
        source: a run folder, a .safetensors file written by dualat (a checkpoint such as best-robust included), or the
            name of a model that comes with dualat (see dualat/models/shipped).
        device: where to put it.
        network: for weights of somebody's own network, which no file can build: that module, into which they are copied.

    Raises:
        FileNotFoundError: nothing is there.
        ValueError: the file is damaged, holds a number that is not finite, is no dualat model, or is a pickle, which is
            refused; the network is missing, or another than the weights'.
    """
    path = find_weights(source)
    tensors, description = read_weights(path)
    check_finite(tensors, path)
    groups: dict[str, dict[str, Tensor]] = {"weights": {}, "initial": {}}
    for key, value in tensors.items():
        group, _, name = key.partition(".")
        groups.setdefault(group, {})[name] = value
    start = None
    if description.initial is not None:
        start = restore_initial(description.initial, description.shape, groups["initial"])
    model = _network_of(path, description, start, groups["weights"], network)
    copy_weights(model, groups["weights"], path)
    return placed(model, device).eval()


def _network_of(
    path: Path,
    description: ModelDescription,
    start: InitialDistribution | None,
    weights: dict[str, Tensor],
    given: nn.Module | None,
) -> LoadedModel:
    """A model for the weights of a file: its own network, or the given one where it has none."""
    if description.network is None:
        if given is None:
            raise ValueError(
                f"{path} holds the weights of a network that was given in Python: pass it, as in "
                "dualat.load(path, network=my_module)."
            )
        return LoadedModel(bare(given), description, start)
    if given is not None:
        raise ValueError(
            f"{path} says itself what its network is ({description.network.name}): leave network out."
        )
    blank = [0.0] * description.shape[0], [1.0] * description.shape[0]
    description.network.pretrained = False  # the weights are in this file: nothing to download
    description.network.checkpoint_activations = False  # a matter of training
    # before memory is spent, as a small file may name a network of any size; some of timm's cannot be made so
    with suppress(NotImplementedError, RuntimeError), torch.device("meta"), NoValues():
        check_weights(build_model(description, None, *blank), weights, path)
    return build_model(description, start, *blank)


def bare(model: nn.Module) -> nn.Module:
    """The network itself, out of whatever models of ours it is wrapped in."""
    while isinstance(model, JointEnergyModel):
        model = model.network
    return model


def placed(model: LoadedModel, device: str | torch.device) -> LoadedModel:
    """The model on a device, in the layout in which convolutions are fast, on CPUs and on GPUs: channels last. Somebody's
    own network keeps its layout, as its `forward` may rely on it (`view`)."""
    if model.description.network is None or model.description.network.is_own:
        return model.to(device=device)
    return model.to(device=device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def find_weights(source: str | Path) -> Path:
    """The weights file meant by a run folder, a file's path, or a shipped model's name; what exists comes first."""
    if (shipped := shipped_file(source)) is not None:
        return shipped
    path = Path(source)
    if path.is_dir():
        if (path / "model.safetensors").is_file():
            return path / "model.safetensors"
        inside = (
            path
            if path.name == "checkpoints" or path.resolve().name == "checkpoints"
            else path / "checkpoints"
        )
        found = [str(p) for p in sorted(inside.glob("*.safetensors")) if not p.name.startswith("state-")]
        files = f", or one of {', '.join(found)}" if found else ""
        raise FileNotFoundError(
            f"{path} holds no model.safetensors: give a run folder whose training has finished{files}."
        )
    if not path.exists():
        raise FileNotFoundError(
            f"{path} does not exist: give a run folder, a .safetensors file, or a model that comes with dualat "
            f"({', '.join(shipped_models())})."
        )
    if path.suffix != ".safetensors":
        raise ValueError(f"{path} is not a .safetensors file: other formats may run code when they are read.")
    return path


def read_weights(path: Path) -> tuple[dict[str, Tensor], ModelDescription]:
    """Tensors and description of a dualat weights file."""
    try:
        with safe_open(path, framework="pt") as handle:
            metadata: dict[str, str] = handle.metadata() or {}
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: {error}.") from error
    try:
        fields: dict[str, Any] = json.loads(metadata["dualat"])
        return tensors, ModelDescription(**fields)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if LOAD in str(error):
            raise ValueError(f"{path} cannot be read: {error}") from error
        raise ValueError(
            f"{path} was not written by dualat: its description is missing or unreadable."
        ) from error


def check_finite(tensors: dict[str, Tensor], path: Path) -> None:
    """ValueError that names the first tensor of a weights file with a NaN or an infinity in it."""
    for name, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise ValueError(
                f"{path} holds numbers that are not finite, the first in {name.removeprefix('weights.')}: its training has "
                "diverged, or it is damaged; take another checkpoint."
            )


def copy_weights(model: nn.Module, weights: dict[str, Tensor], origin: Path | str) -> None:
    """Load weights strictly: see `check_weights`."""
    check_weights(model, weights, origin)
    model.load_state_dict(weights)


def check_weights(model: nn.Module, weights: dict[str, Tensor], origin: Path | str) -> None:
    """ValueError that names the first keys of weights that are missing, unexpected, or of another shape."""
    own, found = (
        {name: tuple(v.shape) for name, v in state.items()} for state in (model.state_dict(), weights)
    )
    if wrong := differences(own, found):
        raise ValueError(f"the weights in {origin} do not fit this network: {counted(wrong)}.")
