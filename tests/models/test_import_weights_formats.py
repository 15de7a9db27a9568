"""Weights in every published format, made small by networks written apart, give the same logits here."""

import pickle
import sys
import types
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import timm
import torch
import torchvision
from foreign_networks import DeepMind, Jem, Stem, pictures, prefixed, same_logits, save, settled, wide
from safetensors.torch import save_file
from torch import Tensor, nn

from dualat.models.conv_stem import STEMS
from dualat.models.import_weights.convert import import_network
from dualat.models.import_weights.settings import STATISTICS, ImportSettings

CIFAR = STATISTICS["cifar"]


@pytest.mark.parametrize("how", ["zip", "before 1.6", "plain pickle"])
@pytest.mark.parametrize("prefix", ["", "module.", "module.module.", "base_model.", "module.base_model."])
def test_dat_and_ratio(tmp_path: Path, how, prefix):
    theirs = wide()
    state = prefixed(theirs.state_dict(), prefix)
    if prefix == "module.module.":  # averaging inside DataParallel
        state["module.n_averaged"] = torch.tensor(17)
    imported = import_network(save(state, tmp_path / "w", how), ImportSettings(normalize="cifar"))
    assert imported.settings.name == "wrn-10-2" and imported.classes == 5 and imported.shape == (3, 32, 32)
    assert imported.settings.normalize == "data" and not imported.network.training
    assert ("averaged" in imported.origin) == (prefix == "module.module.")
    same_logits(imported, theirs, *CIFAR)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("how", ["zip", "before 1.6"])
def test_jem_family(tmp_path: Path, how, norm):
    theirs = settled(Jem(10, 2, 10, 3, norm, 32))
    checkpoint = {"model_state_dict": theirs.state_dict(), "replay_buffer": torch.rand(20, 3, 32, 32)}
    imported = import_network(save(checkpoint, tmp_path / "CIFAR10_MODEL.pt", how))
    settings = imported.settings
    assert (settings.name, settings.activation, settings.layout) == ("wrn-10-2", "leaky_relu", "jem")
    assert settings.norm == ("batch" if norm else "none") and imported.part == "model_state_dict"
    same_logits(imported, theirs, (0.5,), (0.5,))


def test_jempp_files_repeat_their_layers(tmp_path: Path):
    theirs = settled(Jem(10, 1, 10, 3, True, 32))
    state = theirs.state_dict()
    state |= {"f.layer_one.weight": state["f.conv1.weight"], "f.other_layers.3.bias": state["f.bn1.bias"]}
    imported = import_network(save({"model_state_dict": state}, tmp_path / "w", "zip"))
    same_logits(imported, theirs, (0.5,), (0.5,))


class Madry(nn.Module):
    """robustness.attacker.AttackerModel: the network twice, and two normalisers."""

    def __init__(self, network: nn.Module, mean: Tensor, std: Tensor):
        super().__init__()

        class Normaliser(nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("new_mean", mean[:, None, None])
                self.register_buffer("new_std", std[:, None, None])

        self.normalizer, self.model = Normaliser(), network
        self.attacker = nn.Module()
        self.attacker.normalize, self.attacker.model = Normaliser(), network


@pytest.fixture
def dill(monkeypatch) -> types.SimpleNamespace:
    """A pickle module that writes functions as dill does: by their code, to be made again when read."""
    module = types.ModuleType("dill._dill")
    monkeypatch.setitem(sys.modules, "dill", types.ModuleType("dill"))
    monkeypatch.setitem(sys.modules, "dill._dill", module)
    for name in ("_create_function", "_create_code", "_load_type"):
        exec(f"def {name}(*args): raise AssertionError('it was run')", module.__dict__)
        module.__dict__[name].__module__ = "dill._dill"

    class Pickler(pickle._Pickler):  # pyright: ignore[reportAttributeAccessIssue]
        def save_function(self, value):
            if value.__name__ != "<lambda>":
                return self.save_global(value)
            code = value.__code__
            pieces = (module._create_code, (code.co_code, code.co_consts, code.co_names))
            self.save_reduce(module._create_function, (pieces, {}, value.__name__, None), {"x": 1}, obj=value)

        dispatch: ClassVar = {**pickle._Pickler.dispatch, types.FunctionType: save_function}  # pyright: ignore

    def dump(value, file, protocol=2):
        Pickler(file, protocol).dump(value)

    return types.SimpleNamespace(
        Pickler=Pickler, dump=dump, Unpickler=pickle.Unpickler, __name__="dill_alike"
    )


def cifar_resnet(classes: int) -> nn.Module:
    """torchvision's ResNet-18 with the stem that CIFAR's have."""
    network = torchvision.models.resnet18(num_classes=classes)
    network.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
    network.maxpool = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    return network


@pytest.mark.parametrize("how", ["zip", "before 1.6"])
@pytest.mark.parametrize("kind", ["imagenet", "cifar"])
def test_madrylab_robustness(tmp_path: Path, dill, how, kind):
    mean, std = torch.tensor([0.48, 0.45, 0.4]), torch.tensor([0.23, 0.22, 0.24])
    network = torchvision.models.resnet18(num_classes=6) if kind == "imagenet" else cifar_resnet(6)
    theirs = settled(network)
    state = prefixed(Madry(theirs, mean, std).state_dict(), "module.")
    if kind == "cifar":
        state = {k.replace("downsample", "shortcut").replace(".fc.", ".linear."): v for k, v in state.items()}
    checkpoint = {
        "model": state,
        "optimizer": torch.optim.SGD(theirs.parameters(), 0.1, momentum=0.9).state_dict(),
        "schedule": {"lr_lambdas": [lambda epoch: 0.1**epoch], "_step_count": 3},
        "epoch": 105,
        "amp": None,
        "nat_prec1": torch.tensor(57.9),
        "adv_prec1": np.float64(35.2),
    }
    path = tmp_path / "imagenet_l2_3_0.pt"
    torch.save(
        checkpoint,
        path,
        pickle_module=dill,
        pickle_protocol=2,
        _use_new_zipfile_serialization=how == "zip",
    )
    assert b"_create_function" in path.read_bytes()
    imported = import_network(path, ImportSettings(image_size=32))
    name = "timm/resnet18" if kind == "imagenet" else "resnet18_cifar"
    assert imported.settings.name == name and "MadryLab" in imported.origin
    same_logits(imported, theirs, mean.tolist(), std.tolist())


@pytest.mark.parametrize("kind", ["averaged", "wrapped", "with normaliser"])
def test_conv_stem_convnext(tmp_path: Path, monkeypatch, kind):
    monkeypatch.setitem(STEMS, "convnext_tiny_cvst", ("test_convnext", (16, 20, 24), (2, 2, 1), None))
    network = timm.create_model("test_convnext", num_classes=6)
    network.stem = Stem([16, 20, 24], [2, 2, 1])
    theirs = settled(network)
    state = theirs.state_dict()
    if kind == "with normaliser":  # RobustBench's normalize_model
        numbers = {f"normalize.{k}": torch.full((1, 3, 1, 1), v) for k, v in (("mean", 0.4), ("std", 0.3))}
        state = numbers | prefixed(state, "model.")
        state = {"state_dict": prefixed(state, "module.")}
    elif kind == "wrapped":
        state = prefixed(state, "module.base_model.")
    else:
        state = prefixed(state, "module.module.") | {"module.n_averaged": torch.tensor(3)}
    given = None if kind == "with normaliser" else "none"
    settings = ImportSettings(network="convnext_tiny_cvst", image_size=32, normalize=given)
    imported = import_network(save(state, tmp_path / "w.pt", "zip"), settings)
    assert imported.normalized == (kind == "with normaliser")
    assert "convolutional stem" in imported.origin
    mean, std = ((0.4,), (0.3,)) if kind == "with normaliser" else ((0.0,), (1.0,))
    same_logits(imported, theirs, mean, std)


def vit(size: int) -> nn.Module:
    network = timm.create_model("test_vit", num_classes=6, img_size=size)
    network.patch_embed.proj = Stem([8, 16, 32, 64], [2, 2, 2, 2], 64)  # pyright: ignore
    return settled(network)


def test_conv_stem_vit_and_its_image_size(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(STEMS, "vit_small_cvst", ("test_vit", (8, 16, 32, 64), (2, 2, 2, 2), 64))
    theirs = vit(48)
    path = save({"state_dict": theirs.state_dict()}, tmp_path / "w.pt", "zip")
    imported = import_network(path, ImportSettings(network="vit_small_cvst", normalize="imagenet"))
    assert imported.shape == (3, 48, 48) and not imported.notes
    same_logits(imported, theirs, *STATISTICS["imagenet"])
    larger = ImportSettings(network="vit_small_cvst", normalize="none", image_size=64)
    imported = import_network(path, larger)
    assert imported.shape == (3, 64, 64) and imported.notes == ["positions resampled from 3x3 to 4x4 patches"]
    state, own = theirs.state_dict(), imported.network.state_dict()
    assert torch.equal(own["pos_embed"][:, 0], state["pos_embed"][:, 0])  # the class's stays
    assert abs(own["pos_embed"][:, 1:].mean() - state["pos_embed"][:, 1:].mean()) < 0.05
    assert imported.network(pictures(3, 64, 64)).shape == (2, 6)


def test_robustbench_deepmind(tmp_path: Path):
    theirs = settled(DeepMind(16, 2, 10, [0.49, 0.48, 0.44], [0.24, 0.23, 0.26]))
    imported = import_network(save(theirs.state_dict(), tmp_path / "w.pt", "zip"))
    assert (imported.settings.activation, imported.settings.layout) == ("silu", "deepmind")
    assert imported.settings.name == "wrn-16-2" and imported.normalized
    same_logits(imported, theirs)  # it normalises itself


def test_robustbench_wide_resnets(tmp_path: Path):
    theirs = wide(16, 1)
    state = theirs.state_dict()
    state |= {k.replace("block1", "sub_block1"): v for k, v in state.items() if k.startswith("block1.")}
    state |= {"mu": torch.full((1, 3, 1, 1), 0.4), "sigma": torch.full((1, 3, 1, 1), 0.2)}
    path = save({"state_dict": prefixed(state, "module."), "epoch": 3}, tmp_path / "w.pt", "zip")
    imported = import_network(path)
    assert imported.settings.name == "wrn-16-1"
    same_logits(imported, theirs, (0.4,), (0.2,))


@pytest.mark.parametrize("how", ["zip", "safetensors"])
def test_timm_takes_averaged_weights_first(tmp_path: Path, how):
    theirs = settled(timm.create_model("test_resnet", num_classes=6))
    settings = ImportSettings(network="timm/test_resnet", image_size=32, normalize="imagenet")
    if how == "safetensors":
        path = tmp_path / "model.safetensors"
        save_file(theirs.state_dict(), path, metadata={"format": "pt"})
        imported = import_network(path, settings)
    else:
        other = settled(timm.create_model("test_resnet", num_classes=6), seed=1)
        checkpoint = {"epoch": 3, "arch": "test_resnet", "state_dict": other.state_dict()}
        path = save(checkpoint | {"state_dict_ema": theirs.state_dict()}, tmp_path / "last.pth.tar", how)
        imported = import_network(path, settings)
        assert imported.part == "state_dict_ema" and imported.other_parts == ["state_dict"]
        settings.part = "state_dict"
        same_logits(import_network(path, settings), other, *STATISTICS["imagenet"])
    same_logits(imported, theirs, *STATISTICS["imagenet"])


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_plain_pickles_of_arrays(tmp_path: Path, protocol):
    theirs = wide(10, 1)
    arrays = {
        k: np.asfortranarray(v.numpy()) if v.dim() == 4 else v.numpy() for k, v in theirs.state_dict().items()
    }
    arrays["fc.bias"] = arrays["fc.bias"].astype(">f8")
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(arrays, protocol))
    same_logits(import_network(tmp_path / "w.pkl", ImportSettings(normalize="none")), theirs)
