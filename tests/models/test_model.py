"""Models on disk: what is saved comes back, and files that are damaged, foreign or pickles are refused."""

import json
import pickle
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import dualat
from dualat.data.images import ImageData
from dualat.data.initial import build_initial
from dualat.data.settings import DataSettings, InitialSettings
from dualat.models.model import LoadedModel, ModelDescription, SamplingSettings, build_model, save_model
from dualat.models.settings import NetworkSettings

SHAPE = (1, 8, 8)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small(kind: str = "gaussian", normalized: bool = True, name: str = "wrn-10-1") -> LoadedModel:
    images = torch.randint(0, 256, (30, *SHAPE), dtype=torch.uint8, generator=seeded())
    data = ImageData(images, torch.arange(30) % 2, ("a", "b"), "toy")
    settings = InitialSettings(kind=kind)
    description = ModelDescription(
        network=NetworkSettings(name=name),
        class_names=["a", "b"],
        shape=SHAPE,
        normalized=normalized,
        initial=settings,
        sampling=SamplingSettings(steps=3, step_size=0.3),
        data=DataSettings(split_seed=3),
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(description, build_initial(settings, SHAPE, data), [0.3], [0.2])
        model(torch.rand(16, *SHAPE))  # statistics of their own
    return model.eval()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    save_model(small(), tmp_path / "model")
    return tmp_path / "model.safetensors"


@pytest.mark.parametrize("kind", ["gaussian", "class-gaussian", "uniform"])
@pytest.mark.parametrize("normalized", [True, False])
def test_a_model_comes_back_whole(tmp_path: Path, kind, normalized):
    model = small(kind, normalized)
    save_model(model, tmp_path / "model")
    again = dualat.load(tmp_path)
    assert not any(m.training for m in again.modules())
    assert again.description == model.description
    assert (again.class_names, again.shape, again.sampling.steps) == (["a", "b"], SHAPE, 3)
    for own, found in (
        (model.state_dict(), again.state_dict()),
        (model.initial.state(), again.initial.state()),
    ):
        assert own.keys() == found.keys() and all(torch.equal(own[k], found[k]) for k in own)
    x = torch.rand(3, *SHAPE, generator=seeded())
    torch.testing.assert_close(again.logits(x), model.logits(x))
    # Not bit by bit: memory of another alignment may add in another order.
    first, second = (dualat.sample(m, [0, 1], generator=seeded()) for m in (model, again))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-4)


def test_channels_last_weights_and_timm_networks_come_back(tmp_path: Path):
    model = small(name="timm/test_resnet")
    model.to(memory_format=torch.channels_last)
    save_model(model, tmp_path / "model")
    x = torch.rand(3, *SHAPE, generator=seeded())
    torch.testing.assert_close(dualat.load(tmp_path)(x), model(x))


def test_given_weights_are_written_in_place_of_the_models_own(tmp_path: Path):
    model = small()
    average = {k: torch.full_like(v, 2) for k, v in model.state_dict().items()}
    save_model(model, tmp_path / "model", average)
    again = dualat.load(tmp_path / "model.safetensors").state_dict()
    assert all((v == 2).all() for v in again.values())
    assert not all((v == 2).all() for v in model.state_dict().values())


def test_the_description_beside_it_is_readable(path: Path):
    description = json.loads(path.with_suffix(".json").read_text())
    assert description["class_names"] == ["a", "b"] and description["dualat_version"] == dualat.__version__
    assert sorted(p.name for p in path.parent.iterdir()) == ["model.json", "model.safetensors"]


def test_names_with_a_dot_stay_apart(tmp_path: Path):
    save_model(small(), tmp_path / "epoch1.5")
    save_model(small("uniform"), tmp_path / "epoch1.7")
    assert dualat.load(tmp_path / "epoch1.5.safetensors").initial_settings.kind == "gaussian"
    assert dualat.load(tmp_path / "epoch1.7.safetensors").initial_settings.kind == "uniform"


def test_nothing_there(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"nowhere.*does not exist"):
        dualat.load(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"holds no model\.safetensors"):
        dualat.load(tmp_path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_truncated_files_are_refused(path: Path, keep):
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match="damaged"):
        dualat.load(path)


class Bomb:
    """Its pickle would create a file."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self):
        return (open, (str(self.target), "w"))


@pytest.mark.parametrize("name", ["model.pt", "model.pth", "model.ckpt", "model.safetensors"])
def test_pickles_are_refused_and_never_run(tmp_path: Path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Bomb(tmp_path / "exploded")))
    with pytest.raises(ValueError, match=name):
        dualat.load(tmp_path / name)
    torch.save(small().state_dict(), tmp_path / name)
    with pytest.raises(ValueError, match=name):
        dualat.load(tmp_path / name)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "metadata",
    [None, {"format": "pt"}, {"dualat": "{"}, {"dualat": "[]"}, {"dualat": "3"}, {"dualat": "{}"}],
    ids=str,
)
def test_foreign_files_are_refused(tmp_path: Path, metadata):
    save_file({"weights.w": torch.zeros(2)}, tmp_path / "other.safetensors", metadata=metadata)
    with pytest.raises(ValueError, match="not written by dualat"):
        dualat.load(tmp_path / "other.safetensors")


def change(path: Path, edit) -> Path:
    """Rewrite the file with its tensors and description edited in place."""
    tensors, description = load_file(path), json.loads(path.with_suffix(".json").read_text())
    edit(tensors, description)
    save_file(tensors, path, metadata={"dualat": json.dumps(description)})
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t, d: t.pop("weights.network.network.fc.bias"), r"1 missing.*network\.network\.fc\.bias"),
        (lambda t, d: t.update({"weights.extra": torch.zeros(1)}), "1 unexpected.*extra"),
        (
            lambda t, d: t.update({"weights.network.network.fc.bias": torch.zeros(7)}),
            "of another shape.*fc.bias",
        ),
        (lambda t, d: d.update(class_names=["a", "b", "c"]), "of another shape"),
        (lambda t, d: d["network"].update(name="wrn-16-1"), "missing"),
        (lambda t, d: d["network"].update(name="lenet"), "'lenet' is unknown"),
        (lambda t, d: d.update(surprise=1), "not written by dualat"),
        (lambda t, d: t.pop("initial.mean"), "mean"),
    ],
    ids=["missing", "unexpected", "shape", "classes", "depth", "name", "field", "initial"],
)
def test_weights_that_do_not_fit_are_refused_by_name(path: Path, edit, message):
    with pytest.raises(ValueError, match=message):
        dualat.load(change(path, edit))


def test_loading_needs_no_download(path: Path):
    """`pretrained` describes where a network began: its weights are in the file."""
    save_model(small(name="timm/test_resnet"), path.with_suffix(""))

    def edit(tensors, description):
        description["network"]["pretrained"] = True

    assert not dualat.load(change(path, edit)).description.network.pretrained


@pytest.mark.parametrize(
    ("key", "told"),
    [
        ("weights.network.network.fc.weight", "network.network.fc.weight"),
        ("weights.network.network.bn1.running_var", "network.network.bn1.running_var"),
        ("weights.network.std", "network.std"),
        ("initial.mean", "initial.mean"),
    ],
)
@pytest.mark.parametrize("value", [float("nan"), float("-inf")])
def test_weights_that_are_not_finite_are_refused_by_name(path: Path, key, told, value):
    """One NaN among the weights: accuracy was 0.100, samples were black, and no word was said."""
    with safe_open(path, framework="pt") as handle:
        metadata = handle.metadata()
    tensors = load_file(path)
    tensors[key].view(-1)[-1] = value
    save_file(tensors, path, metadata=metadata)
    with pytest.raises(
        ValueError, match=rf"model\.safetensors holds numbers that are not finite, the first in {told}: .*\.$"
    ):
        dualat.load(path)


def test_a_model_is_float32_whatever_the_default_type(path: Path, double_by_default):
    model = dualat.load(path)
    assert {t.dtype for t in model.state_dict().values() if t.is_floating_point()} == {torch.float32}
    samples = dualat.sample(model, [0, 1], initial="uniform", generator=seeded())
    assert model.logits(samples).dtype == torch.float32


@pytest.mark.parametrize("description", ["[" * 3000, '{"network": ' + "[" * 3000 + "]" * 3000 + "}"])
def test_a_description_nested_too_deeply_is_one_sentence(tmp_path: Path, description):
    save_file({"weights.x": torch.ones(1)}, tmp_path / "m.safetensors", metadata={"dualat": description})
    with pytest.raises(ValueError, match="m.safetensors was not written by dualat"):
        dualat.load(tmp_path / "m.safetensors")


def test_a_small_file_that_names_a_large_network_takes_no_memory(path: Path, monkeypatch):
    change(path, lambda tensors, description: description["network"].update(name="wrn-10-200"))  # of 15 GB
    made, own = [], torch.nn.Conv2d.__init__

    def convolution(self, *arguments, **options):
        own(self, *arguments, **options)
        made.append(self.weight.device.type)

    monkeypatch.setattr(torch.nn.Conv2d, "__init__", convolution)
    with pytest.raises(ValueError, match="do not fit this network"):
        dualat.load(path)
    assert set(made) == {"meta"}


def test_the_folder_of_checkpoints_names_what_is_in_it(path: Path, monkeypatch):
    """It named checkpoints/checkpoints, which nobody has."""
    folder = path.parent / "run" / "checkpoints"
    folder.mkdir(parents=True)
    for name in ("stage1", "best-robust"):
        (folder / f"{name}.safetensors").write_bytes(path.read_bytes())
    (folder / "state-1-00000003.safetensors").write_bytes(b"")
    monkeypatch.chdir(folder)
    for place, prefix in ((folder, f"{folder}/"), (folder.parent, f"{folder}/"), (Path("."), "")):
        with pytest.raises(FileNotFoundError) as caught:
            dualat.load(place)
        assert f"or one of {prefix}best-robust.safetensors, {prefix}stage1.safetensors." in str(caught.value)
