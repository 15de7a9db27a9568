"""Evaluation as a whole: every metric on a real run, nothing measured twice, nothing lost by a kill."""

import json
import math
import random
import signal
import time
from dataclasses import asdict, fields, replace
from functools import partial
from importlib import import_module
from pathlib import Path

import forked
import numpy as np
import pytest
import torch
from conftest import made_once

import dualat
from dualat.config import load_recipe
from dualat.data.in_distribution import load_splits
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.inception_weights import FILE
from dualat.evaluation.masking import warnings_of
from dualat.evaluation.metrics import autoattack as ensemble
from dualat.evaluation.metrics import throughput
from dualat.evaluation.outside import outside_images
from dualat.evaluation.registry import METRICS, Metric
from dualat.evaluation.samples import ImageSet, from_model, read_samples
from dualat.evaluation.settings import EvaluationSettings
from dualat.evaluation.store import update_records
from dualat.models.model import LoadedModel
from dualat.results.catalogue import CATALOGUE
from dualat.results.record import Record, read_records
from dualat.run.evaluation import save_strips, validation_evaluator

SMALL = EvaluationSettings(
    eps=(0.5,),
    validation_eps=0.5,
    steps=3,
    robust_images=12,
    autoattack_images=3,
    samples=30,
    ood_images=20,
    ood_steps=2,
    counterfactual_images=200,
    counterfactual_eps=(1.0,),
    counterfactual_steps=2,
    energy_images=20,
    sweep_steps=(1, 2),
    sweep_samples=20,
)
OFFLINE = [name for name in METRICS if name != "inception"]  # its network's weights are not here
FAST = [name for name in OFFLINE if name not in ("autoattack", "apgd", "throughput", "imagenet_features")]


@pytest.fixture(scope="module")
def splits(tiny_run):
    return load_splits(load_recipe(str(tiny_run / "config.yaml")).data)


def context(tiny_run: Path, splits, keep: Path | None = None, **changes) -> EvaluationContext:
    return EvaluationContext(dualat.load(tiny_run), splits, replace(SMALL, **changes), seed=0, keep=keep)


@pytest.fixture(scope="module")
def measured(tiny_run, splits, tmp_path_factory) -> tuple[Path, list[Record]]:
    """A file with every metric, each measured once."""

    def measure(folder: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:  # speeds are not what is tested here
            quick = partial(throughput.throughput_records, seconds_each=0.02)
            patch.setattr(throughput, "throughput_records", quick)
            update_records(
                folder / "evaluation.json", context(tiny_run, splits), "final", OFFLINE, by_name=True
            )

    path = made_once(tmp_path_factory, "records", measure) / "evaluation.json"
    return path, read_records(path)


@pytest.mark.parametrize("name", OFFLINE)
def test_every_metric_gives_records_that_can_be_trusted(measured, name):
    records = [r for r in measured[1] if r.key.startswith(f"{name}:")]
    assert records
    for record in records:
        assert math.isfinite(record.value) and record.n > 0 and record.model == "final"
        assert record.versions["torch"] == torch.__version__
        assert record.metric in CATALOGUE
        assert (
            record.seconds > 0 and record.seed is not None and record.data.startswith("digits test, sha256 ")
        )
        assert record.ci95 is None or record.ci95[0] <= record.value <= record.ci95[1]
        json.dumps(asdict(record), allow_nan=False)


def test_every_setting_belongs_to_a_metric():
    while_training = {"validation_images", "validation_samples"}
    used = {setting for metric in METRICS.values() for setting in metric.uses}
    assert used == {f.name for f in fields(EvaluationSettings)} - while_training


def test_what_is_there_is_used_again_and_said(measured, tiny_run, splits, monkeypatch):
    def never(*_):
        raise AssertionError("measured twice")

    monkeypatch.setattr(Metric, "measure", never)
    lines: list[str] = []
    again = update_records(
        measured[0], context(tiny_run, splits), "final", OFFLINE, by_name=True, tell=lines.append
    )
    assert [asdict(r) for r in again] == [asdict(r) for r in read_records(measured[0])]
    assert len(lines) == 1 and all(name in lines[0] for name in OFFLINE)
    with pytest.raises(AssertionError, match="twice"):
        update_records(
            measured[0], context(tiny_run, splits), "final", ["clean_accuracy"], by_name=True, again=True
        )


CHANGES = {
    "norm": "Linf",
    "eps": (0.25, 0.5),
    "steps": 4,
    "robust_images": 13,
    "large_eps": 9.0,
    "autoattack_eps": (0.25,),
    "autoattack_images": 4,
    "bins": 10,
    "temperature_scaling": True,
    "samples": 40,
    "reference": "train",
    "inception_weights": "none.pth",
    "ood_sources": ("uniform",),
    "ood_images": 21,
    "ood_scores": ("s",),
    "ood_eps": 0.5,
    "ood_steps": 3,
    "ood_step_size": 0.2,
    "counterfactual_eps": (2.0,),
    "counterfactual_images": 210,
    "counterfactual_steps": 3,
    "counterfactual_climb": "probability",
    "energy_images": 21,
    "sweep_steps": (2, 3),
    "sweep_samples": 30,
    "validation_eps": 0.25,
}


def told(records: list[Record]) -> str:
    """What a reader of the file sees of the figures."""
    return json.dumps([(r.metric, r.value, r.n, r.settings, r.details) for r in records])


@pytest.mark.parametrize("setting", CHANGES)
def test_no_setting_is_ignored(measured, tiny_run, splits, setting):
    """Another value gives another fingerprint and, for the quick metrics, another result."""
    plain, changed = (
        context(tiny_run, splits),
        context(tiny_run, splits, **{setting: CHANGES[setting]}),
    )
    for name, metric in METRICS.items():
        same = plain.key(name, metric.uses) == changed.key(name, metric.uses)
        assert same == (setting not in metric.uses), name
        if not same and name in FAST:
            before = [r for r in measured[1] if r.key.startswith(f"{name}:")]
            assert told(METRICS[name].measure(changed)) != told(before), name


def test_other_weights_data_or_seeds_have_another_fingerprint(tiny_run, splits):
    plain = context(tiny_run, splits)
    key = plain.key("clean_accuracy", ())
    other = context(tiny_run, splits)
    with torch.no_grad():
        next(other.required_model.parameters()).add_(1e-3)
    fewer = replace(splits, test=splits.test.take(torch.arange(100)))
    assert key != other.key("clean_accuracy", ())
    assert key != context(tiny_run, fewer).key("clean_accuracy", ())
    assert key != replace(context(tiny_run, splits), seed=1).key("clean_accuracy", ())
    assert key == context(tiny_run, splits).key("clean_accuracy", ())


def test_records_of_other_settings_stay_and_those_of_other_weights_go(tiny_run, splits, tmp_path):
    path = tmp_path / "e.json"
    both = ["clean_accuracy", "robust_accuracy"]
    update_records(path, context(tiny_run, splits), "final", both, by_name=True)
    update_records(path, context(tiny_run, splits), "stage1", ["clean_accuracy"], by_name=True)
    update_records(
        path, context(tiny_run, splits, eps=(0.3, 0.5)), "final", ["robust_accuracy"], by_name=True
    )
    records = read_records(path)
    assert [r.model for r in records if r.metric == "clean_accuracy"] == ["final", "stage1"]
    assert [r.settings["eps"] for r in records if r.metric == "robust_accuracy"] == [0.3, 0.5, 4.0]
    update_records(
        path, context(tiny_run, splits, robust_images=5), "final", ["robust_accuracy"], by_name=True
    )
    assert [r.n for r in read_records(path) if r.metric == "robust_accuracy"] == [12, 12, 12, 5, 5]
    other = context(tiny_run, splits)
    with torch.no_grad():
        next(other.required_model.parameters()).add_(1e-3)
    update_records(path, other, "final", ["robust_accuracy"], by_name=True)
    records = [r for r in read_records(path) if r.metric == "robust_accuracy"]
    assert len(records) == 2 and {r.key.split(":")[1] for r in records} == {other.content[:12]}


def test_another_evaluation_of_the_same_file_loses_nothing(tiny_run, splits, tmp_path, monkeypatch):
    path = tmp_path / "e.json"
    own = METRICS["calibration"].measure

    def slow(found: EvaluationContext) -> list[Record]:
        update_records(
            path, context(tiny_run, splits), "final", ["clean_accuracy"], by_name=True
        )  # meanwhile
        return own(found)

    monkeypatch.setitem(METRICS, "calibration", replace(METRICS["calibration"], function=slow))
    update_records(path, context(tiny_run, splits), "final", ["calibration"], by_name=True)
    assert {r.metric for r in read_records(path)} == {"clean_accuracy", "ece"}


def test_half_done_work_of_another_metric_stays(tiny_run, splits, tmp_path):
    keep = tmp_path / "partial"
    state = context(tiny_run, splits, keep).partial("autoattack", METRICS["autoattack"].uses)
    assert state is not None
    state.mkdir(parents=True)
    update_records(
        tmp_path / "e.json", context(tiny_run, splits, keep), "final", ["generation"], by_name=True
    )
    assert list(keep.iterdir()) == [state]


def test_what_a_setting_names_is_part_of_the_fingerprint(tiny_run, splits, tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    found = context(tiny_run, splits, reference=str(folder))
    empty = found.key("generation", METRICS["generation"].uses)
    (folder / "a.png").write_bytes(b"1")
    assert found.key("generation", METRICS["generation"].uses) != empty
    assert found.key("clean_accuracy", ()) == context(tiny_run, splits).key("clean_accuracy", ())


def test_the_averages_of_few_images_have_their_number(tiny_run, splits):
    few = replace(splits, train=splits.train.take(torch.arange(50)))
    records = METRICS["energy"].measure(context(tiny_run, few, energy_images=80))
    of = {r.settings["images"]: r for r in records if r.metric == "energy"}
    assert of["train"].n == 50 and of["train"].split == "train" and of["test"].split == "test"
    assert of["contrastive"].split == ""


def test_one_evaluation_attacks_and_draws_once_for_all_metrics(tiny_run, splits, tmp_path, monkeypatch):
    """The same PGD ran three times: for robust accuracy, calibration and energy."""
    counted: dict[str, int] = {}

    def count(place: str) -> None:
        module, name = import_module(place.rpartition(".")[0]), place.rpartition(".")[2]
        own = getattr(module, name)

        def counting(*args, **kwargs):
            counted[name] = counted.get(name, 0) + 1
            return own(*args, **kwargs)

        monkeypatch.setattr(module, name, counting)

    for place in ("attack.pgd_attack", "context.shared_logits", "context.from_model", "metrics.ood.climb"):
        count(f"dualat.evaluation.{place}")
    count("dualat.evaluation.context.gradient_norms")
    every = {"robust_images": None, "energy_images": 1000, "ood_images": 1000, "eps": (0.25, 0.5)}
    found = context(tiny_run, splits, **every, samples=1000)
    assert len(splits.test) < 500  # one batch
    update_records(tmp_path / "e.json", found, "final", FAST, by_name=True)
    # radii 0.25, 0.5 and that of grey; noise of two kinds climbs two scores
    assert counted == {"pgd_attack": 3, "shared_logits": 1, "from_model": 1, "climb": 4, "gradient_norms": 1}


@pytest.mark.usefixtures("short")
def test_apgd_runs_once_for_its_own_metric_and_for_autoattack(tiny_run, splits, monkeypatch):
    small = {"autoattack_images": 12, "autoattack_eps": (0.05,)}
    names = ("apgd", "autoattack")
    apart = {name: METRICS[name].measure(context(tiny_run, splits, **small)) for name in names}
    seen: list[str] = []
    own = ensemble.perturber

    def watched(*args):
        perturb, targets = own(*args)
        return (lambda name, x, y: (seen.append(name), perturb(name, x, y))[1]), targets

    monkeypatch.setattr(ensemble, "perturber", watched)
    for order in (names, names[::-1]):
        seen.clear()
        found = context(tiny_run, splits, **small)
        for name in order:
            assert told(METRICS[name].measure(found)) == told(apart[name])
        assert seen.count("clean") == seen.count("apgd-ce") == len(small["autoattack_eps"])
        assert "apgd-t" in seen


class Killed(BaseException):
    pass


@pytest.mark.usefixtures("short")
def test_killed_at_any_chunk_of_autoattack_the_figures_are_the_same(tiny_run, splits, tmp_path, monkeypatch):
    keep, small = tmp_path / "partial", {"autoattack_images": 40, "autoattack_eps": (0.02,)}

    def measure(file: str, killed_at: int | None = None, kept: Path | None = keep) -> list[Record]:
        count = 0

        def progress(what: str, done: int, total: int) -> None:
            nonlocal count
            count += 1
            if count == killed_at:
                raise Killed

        found = context(tiny_run, splits, kept, **small)
        found.progress = progress
        return update_records(tmp_path / file, found, "final", ["autoattack"], by_name=True)

    whole = measure("whole.json", kept=None)
    assert 0 < whole[0].value < 1
    for chunk in (1, 2, 1):  # clean; APGD-CE, APGD-T; FAB-T
        with pytest.raises(Killed):
            measure("killed.json", chunk)
        assert list(keep.iterdir())
    names: list[str] = []
    own = ensemble.perturber

    def watched(*args):
        perturb, targets = own(*args)
        return (lambda name, x, y: (names.append(name), perturb(name, x, y))[1]), targets

    monkeypatch.setattr(ensemble, "perturber", watched)
    assert told(measure("killed.json")) == told(whole)
    assert names == ["square"]  # the chunks that were finished are not attacked again
    assert not list(keep.iterdir())  # half-done work is removed at the end


def test_metrics_without_their_files_are_left_out_unless_named(tiny_run, splits, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "empty"))
    lines: list[str] = []
    args = (tmp_path / "e.json", context(tiny_run, splits), "final", ["inception"])
    assert update_records(*args, by_name=False, tell=lines.append) == []
    assert "inception is left out" in lines[0] and "torch-fidelity" in lines[0]
    with pytest.raises(FileNotFoundError, match="torch-fidelity"):
        update_records(*args, by_name=True)


def test_missing_weights_are_told_before_anything_is_measured(tiny_run, splits, tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    measured = context(tiny_run, splits)
    for names in (("clean_accuracy", "inception"), ("inception",)):
        with pytest.raises(FileNotFoundError, match="get weights-inception"):
            update_records(tmp_path / "records.json", measured, "final", names, by_name=True)
    assert not (tmp_path / "records.json").exists() and "samples" not in vars(measured)


@pytest.mark.parametrize("by_name", [True, False])
def test_wrong_weights_are_told_before_anything_is_measured(tiny_run, splits, tmp_path, monkeypatch, by_name):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    (tmp_path / "hub" / "checkpoints" / FILE).write_bytes(b"half a download")
    names = ("clean_accuracy", "inception")
    with pytest.raises(ValueError, match="get it anew"):
        update_records(tmp_path / "records.json", context(tiny_run, splits), "final", names, by_name=by_name)
    assert not (tmp_path / "records.json").exists()


def test_from_python_too_missing_weights_are_told_first(tiny_run, splits, tmp_path, monkeypatch):
    def never(context):
        raise AssertionError("measured")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setitem(METRICS, "clean_accuracy", replace(METRICS["clean_accuracy"], function=never))
    with pytest.raises(FileNotFoundError, match="get weights-inception"):
        dualat.evaluate(dualat.load(tiny_run), splits, ["clean_accuracy", "inception"], SMALL)


@pytest.mark.parametrize(
    ("changes", "metrics", "match"),
    [
        ({"reference": "nothing"}, ("generation",), "nothing does not exist"),
        ({"reference": "nothing"}, ("clean_accuracy", "imagenet_features"), "nothing does not exist"),
        ({"reference": "{}/seven.npz"}, ("clean_accuracy", "generation"), "statistics of 7 features"),
        ({"reference": "{}/few.npz"}, ("generation",), "need more than .* but there are 30 and 2"),
        ({"ood_sources": ("uniform", "nowhere")}, ("clean_accuracy", "ood"), "'nowhere' is neither a folder"),
        ({"ood_sources": ("{}",)}, ("clean_accuracy", "energy"), "no readable image"),
    ],
)
def test_what_is_compared_with_is_looked_at_before_anything_is_drawn(
    tiny_run, splits, tmp_path, monkeypatch, changes, metrics, match
):
    """`--reference nothing` was noticed after all samples were drawn, and after hours of other metrics."""

    def never(*_, **__):
        raise AssertionError("drawn or measured")

    np.savez(tmp_path / "seven.npz", mu=np.zeros(7), sigma=np.eye(7))
    np.savez(tmp_path / "few.npz", arr_0=np.full((2, 8, 8, 1), 9, np.uint8))
    monkeypatch.setattr("dualat.evaluation.context.from_model", never)
    monkeypatch.setitem(METRICS, "clean_accuracy", replace(METRICS["clean_accuracy"], function=never))
    changes = {
        key: tuple(v.format(tmp_path) for v in value) if isinstance(value, tuple) else value.format(tmp_path)
        for key, value in changes.items()
    }
    with pytest.raises((ValueError, FileNotFoundError), match=match):
        update_records(
            tmp_path / "e.json", context(tiny_run, splits, **changes), "final", metrics, by_name=True
        )
    assert not (tmp_path / "e.json").exists()


def test_a_run_that_could_not_be_evaluated_is_not_trained(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(import_module("dualat.run.train"), "new_model", None)  # training begins with it
    changes = {**tiny, "evaluation.reference": "nothing", "output": str(tmp_path / "run")}
    with pytest.raises(FileNotFoundError, match="nothing does not exist"):
        dualat.train("digits", changes)


def test_other_labels_are_other_samples(splits):
    """Figures of samples with labels corrected must not be those kept of the wrong ones."""
    images = splits.test.images[:20]
    keys = set()
    for labels in (torch.arange(20) % 10, torch.zeros(20, dtype=torch.int64), None):
        given = ImageSet(images, labels, "s")
        keys.add(
            EvaluationContext(None, splits, SMALL, 0, given=given).key("generation", ("samples", "reference"))
        )
    assert len(keys) == 3


def test_samples_of_another_class_are_refused_at_once(splits):
    with pytest.raises(ValueError, match="the label 10, but .* has only the classes 0 to 9"):
        EvaluationContext(
            None, splits, SMALL, 0, given=ImageSet(splits.test.images[:1], torch.tensor([10]), "s")
        )


def test_samples_from_a_file_measure_as_those_of_the_model(tiny_run, splits, measured, tmp_path):
    drawn = from_model(dualat.load(tiny_run), SMALL.samples, seed=0)
    np.savez(tmp_path / "s.npz", arr_0=drawn.images.permute(0, 2, 3, 1).numpy(), arr_1=drawn.labels.numpy())
    records = dualat.evaluate(None, splits, ["generation"], SMALL, samples=read_samples(tmp_path / "s.npz"))
    expected = {r.metric: r.value for r in measured[1] if r.key.startswith("generation:")}
    assert {r.metric: r.value for r in records} == pytest.approx(expected)
    with pytest.raises(ValueError, match="samples alone"):
        dualat.evaluate(None, splits, ["clean_accuracy"], SMALL, samples=read_samples(tmp_path / "s.npz"))


def test_outside_images_are_fitted_picked_and_seeded(splits):
    found = outside_images("digits", splits.test.shape, 30, 0)
    assert len(found) == 30 and found.shape == splits.test.shape and found.name == "digits"
    assert torch.equal(found.images, outside_images("digits", splits.test.shape, 30, 0).images)
    assert not torch.equal(found.images, outside_images("digits", splits.test.shape, 30, 1).images)


def test_masked_gradients_are_named(splits):
    def robust(eps: float, value: float) -> Record:
        settings = {"attack": "pgd", "norm": "L2", "eps": eps, "steps": 20}
        return Record("robust_accuracy", value, 500, settings=settings, model="final")

    assert warnings_of([robust(0.5, 0.8), robust(4.0, 0.01)], splits.test) == []
    (text,) = warnings_of([robust(0.5, 0.8), robust(4.0, 0.7)], splits.test)
    assert "final" in text and "grey" in text


def saturated(tiny_run: Path, splits, **changes) -> EvaluationContext:
    """A model whose softmax is 0 and 1 in float32: cross-entropy has no gradient, and PGD does nothing."""
    own = context(tiny_run, splits, **changes)
    layer = [m for m in own.required_model.modules() if isinstance(m, torch.nn.Linear)][-1]
    with torch.no_grad():
        layer.weight.mul_(1e9)
        layer.bias.mul_(1e9)
    return own


def test_warnings_of_masked_gradients_stand_in_the_records(tiny_run, splits, tmp_path):
    path, own = tmp_path / "evaluation.json", saturated(tiny_run, splits, robust_images=None)
    records = update_records(path, own, "final", ["clean_accuracy", "robust_accuracy"], by_name=True)
    expected = warnings_of(records, splits.test)
    assert expected and "grey" in expected[0]
    for found in (
        records,
        read_records(path),
        dualat.evaluate(own.required_model, splits, settings=own.settings),
    ):
        robust = [r for r in found if r.metric == "robust_accuracy"]
        assert robust and all(r.warnings == expected for r in robust)
        assert all(r.warnings == [] for r in found if r.metric != "robust_accuracy")
    # a file from before records had warnings gets them when it is used again
    fields = [{k: v for k, v in entry.items() if k != "warnings"} for entry in json.loads(path.read_text())]
    path.write_text(json.dumps(fields))
    again = update_records(path, own, "final", ["robust_accuracy"], by_name=True)
    assert [r.warnings for r in again] == [expected] * 2
    assert [r.warnings for r in read_records(path)] == [[], expected, expected]


def test_strips_are_written(tiny_run, splits, tmp_path):
    save_strips(dualat.load(tiny_run), splits.test, SMALL, tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 5


@pytest.mark.slow
def test_killed_ten_times_the_command_ends_with_the_same_figures(tiny_run, tmp_path):
    """SIGKILL at random moments of AutoAttack and of sampling."""
    metrics = ["generation", "autoattack", "apgd", "step_sweep"]
    options = [
        "--samples",
        "1500",
        "--autoattack-images",
        "60",
        "--robust-images",
        "60",
        "--json",
        "--seed",
        "3",
    ]
    environment = {"DUALAT_CACHE": str(tmp_path / "cache")}

    def command(output: str) -> list[str]:
        return [
            "evaluate",
            str(tiny_run),
            "--metrics",
            *metrics,
            "--output",
            str(tmp_path / output),
            *options,
        ]

    began = time.monotonic()
    forked.run(command("whole.json"), tmp_path / "errors", environment)
    seconds = time.monotonic() - began
    killed, moments = 0, random.Random(0)
    while killed < 10:
        process = forked.Command(command("killed.json"), tmp_path / "errors", environment)
        if process.wait(moments.uniform(0.1, 0.4) * seconds) is None:
            process.send_signal(signal.SIGKILL)
            killed += process.wait() == -signal.SIGKILL
        else:
            assert process.returncode == 0, process.errors
            (tmp_path / "killed.json").unlink()  # it was done before the tenth kill: once more from the start
    forked.run(command("killed.json"), tmp_path / "errors", environment)
    whole, resumed = read_records(tmp_path / "whole.json"), read_records(tmp_path / "killed.json")
    assert told(whole) == told(resumed)


def broken(model: LoadedModel) -> LoadedModel:
    """One weight NaN: the last class's logit is, those of the others are not."""
    with torch.no_grad():
        layer = [m for m in model.modules() if isinstance(m, torch.nn.Linear)][-1]
        layer.weight[-1, 0] = math.nan
    return model


@pytest.mark.parametrize("name", OFFLINE)
def test_no_metric_measures_a_model_that_is_not_finite(tiny_run, splits, name):
    """Accuracy was 0.100, generation scored black pictures, throughput timed them, two metrics ended in a LinAlgError."""
    own = context(tiny_run, splits)
    broken(own.required_model)
    with pytest.raises(ValueError, match="not finite"):
        METRICS[name].measure(own)


def test_a_validation_of_such_a_model_does_not_end_its_training(tiny_run, splits, tmp_path):
    """Whether training has diverged is told by its loss."""
    evaluator = validation_evaluator(load_recipe(str(tiny_run / "config.yaml")), splits, tmp_path)
    assert evaluator(dualat.load(tiny_run), 1, 8).keys() >= {"clean_accuracy", "frechet_distance"}
    with pytest.warns(UserWarning, match="stage 1, step 8 has no validation values: .* not finite"):
        assert evaluator(broken(dualat.load(tiny_run)), 1, 8) == {}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_models_in_half_precision_are_measured_and_the_records_say_so(tiny_run, splits, measured, dtype):
    small = context(tiny_run, splits)
    small.model = small.required_model.to(dtype)
    for name in FAST:
        records = METRICS[name].measure(small)
        known = [r for r in measured[1] if r.key.startswith(f"{name}:")]
        assert [r.metric for r in records] == [r.metric for r in known]
        assert all(math.isfinite(r.value) for r in records), name
        if name in ("clean_accuracy", "robust_accuracy", "energy"):  # rounding changes little
            assert [r.value for r in records] == pytest.approx([r.value for r in known], rel=0.1, abs=0.2)
        if name == "robust_accuracy":
            assert {r.settings["precision"] for r in records} == {
                "fp16" if dtype == torch.float16 else "bf16"
            }
    for name in ("autoattack", "apgd"):
        with pytest.raises(ValueError, match="not float32: call model.float"):
            METRICS[name].measure(small)


def test_the_default_type_changes_no_figure(tiny_run, splits, measured, double_by_default):
    names = [*FAST, "apgd", "imagenet_features"]
    for name in names:
        (records,) = [dualat.evaluate(dualat.load(tiny_run), splits, [name], SMALL)]
        known = [r for r in measured[1] if r.key.startswith(f"{name}:")]
        assert [r.value for r in records] == pytest.approx([r.value for r in known], rel=1e-4), name
    assert torch.get_default_dtype() == torch.float64


@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_a_seed_that_nothing_takes_is_refused_before_anything_is_measured(seed):
    with pytest.raises(ValueError, match=r"seed is .*0 to 2\^63 - 1"):
        dualat.evaluate(None, None, ["generation"], seed=seed)  # type: ignore[arg-type]
