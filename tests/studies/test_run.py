"""The runner of studies: what it refuses before anything is trained, and what it keeps. Few tests train; in the others a
stand-in for `dualat.train` diverges at once."""

import fcntl
import importlib.util
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

from dualat.config import plain, to_yaml
from dualat.short_form import merge
from dualat.training.divergence import Diverged, write_outcome
from dualat.training.signals import Stopped

STUDIES = Path(__file__).parents[2] / "studies"
sys.path.insert(0, str(STUDIES))  # as `python studies/run.py` has it
cost, plan, reading, run, samplers = map(import_module, ("cost", "plan", "reading", "run", "samplers"))

SAMPLERS = [{"steps": 1, "step_size": 0.1}, {"steps": 2, "step_size": 0.3}]
OWN = {"steps": 1, "step_size": 0.2, "noise": 0.01}
STAGE = {"epochs": None, "steps": 3, "batch_size": 16, "evaluate_every": 3}
STUDY = {
    "title": "Tiny",
    "base": {
        "method": "standard-at",
        "device": "cpu",
        "precision": "fp32",
        "compile": "off",
        "network": {"name": "wrn-10-1"},
        "attack": {"eps": 0.2, "steps": 2, "step_size": 0.1},
        "chain": {"buffer": 20, "steps": 1},  # standard-at reads none: base serves several methods
        "robust_augment": {"kind": "none"},
        "energy_augment": {"kind": "none"},
        "stage1": STAGE,
        "sampling": {"steps": 2},
        "tracking": {"checkpoint_every": 1, "log_every": 1, "trackers": []},
        "evaluation": {
            "eps": [0.2],
            "validation_eps": 0.2,
            "steps": 1,
            "robust_images": 10,
            "samples": 20,
            "validation_images": 10,
            "validation_samples": 20,
        },
    },
    "variants": {"at": None, "jem": {"method": "jem"}},
    "seeds": [0, 1],
    "samplers": SAMPLERS,
    "own_samplers": {"jem": OWN},
    "metrics": ["clean_accuracy", "robust_accuracy"],
    "evaluation": {"eps": [0.1], "robust_images": 20},
}
QUIET = {k: v for k, v in STUDY.items() if k not in ("samplers", "own_samplers", "evaluation")} | {
    "metrics": []
}
"""The same with nothing measured."""


def write_study(root, study, name="tiny"):
    folder = root / "studies" / name
    folder.mkdir(parents=True, exist_ok=True)
    text = study if isinstance(study, str) else yaml.safe_dump(study, sort_keys=False)
    (folder / "study.yaml").write_text(text)
    return folder


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository; the command is given somewhere else."""
    return use(tmp_path / "repository", monkeypatch, tmp_path)


def use(root, monkeypatch, cwd):
    write_study(root, STUDY)
    monkeypatch.chdir(cwd)
    monkeypatch.setattr(run, "HERE", root / "studies")
    return root


def call(*args, name="tiny"):
    """Exit code of `python studies/run.py NAME ...`."""
    before = sys.argv
    sys.argv = ["run.py", name, *args]
    try:
        with pytest.raises(SystemExit) as stop:
            run.main()
    finally:
        sys.argv = before
    return stop.value.code


@pytest.fixture
def trained(monkeypatch):
    """Stands in for training, which diverges at once; the output folders of the runs that were begun."""
    begun = []

    def train(config, resume):
        assert resume
        begun.append(config.output)
        folder = Path(config.output)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.yaml").write_text(to_yaml(config))  # as training writes it
        write_outcome(folder, "diverged", [{"stage": 1, "step": 1, "loss": "nan", "gradient_norm": "nan"}])
        raise Diverged("the loss became infinite.")

    monkeypatch.setattr(run.dualat, "train", train)
    return begun


def records(root, name="tiny"):
    folder = root / "studies" / name / "records"
    return {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Variants at and jem, seed 0, really trained and measured."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        root = use(folder / "repository", patch, folder)
        assert call("--seeds", "0") == 0
    return root


@pytest.fixture
def copied(finished, tmp_path, monkeypatch):
    """A copy of it, to be changed."""
    shutil.copytree(finished, tmp_path / "repository", symlinks=True)
    return use(tmp_path / "repository", monkeypatch, tmp_path)


# What a study file says is checked before anything is trained.


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"title: \xff", "study.yaml is no text (UTF-8): write it anew."),
        (b"", "study.yaml: a study maps keys to values, but this is empty."),
        (b"3", "study.yaml: a study maps keys to values, but this is of type int."),
    ],
)
def test_a_file_that_is_no_study_is_one_sentence(tmp_path, content, message):
    (tmp_path / "study.yaml").write_bytes(content)
    with pytest.raises(ValueError) as refused:
        plan.read_file(tmp_path / "study.yaml")
    assert str(refused.value).endswith(message)


WRONG = [
    ({"sampelrs": []}, "sampelrs is no key of a study. Did you mean samplers?"),
    ({"seeds": None}, "seeds is None"),
    ({"seeds": []}, "seeds is empty"),
    ({"seeds": [0, 0]}, "seeds names 0 twice"),
    ({"seeds": [0, "one"]}, "seeds is 'one'"),
    ({"variants": {}}, "variants is empty"),
    ({"variants": {"at/x": None}}, "variants: 'at/x' names files"),
    ({"variants": ["at"]}, "variants is ['at']"),
    ({"base": STUDY["base"] | {"attak": {}}}, "base: attak is no setting. Did you mean attack?"),
    ({"base": STUDY["base"] | {"seed": 3}}, "base.seed is every run's own"),
    (
        {"variants": {"at": {"attack": {"epss": 0.1}}}},
        "variants.at: attack.epss is no setting. Did you mean attack.eps?",
    ),
    ({"variants": {"at": {"attack": {"eps": 9.0}}}}, "variants.at: the attack cannot reach"),
    ({"variants": {"at": {"chain": {"buffer": 5}}}}, "variants.at: chain.buffer has no effect"),
    ({"variants": {"at": {"output": "here"}}}, "variants.at.output is every run's own"),
    (
        {"samplers": [{"step_sise": 0.1}]},
        "samplers: sampling.step_sise is no setting. Did you mean sampling.step_size?",
    ),
    ({"samplers": [{"steps": -1}]}, "samplers: sampling.steps must be 0 or more"),
    ({"own_samplers": {"jem": {"steps": -1}}}, "own_samplers.jem: sampling.steps must be"),
    ({"own_samplers": {"jem": [OWN, {"noise": -1}]}}, "own_samplers.jem: sampling.noise is"),
    ({"own_samplers": {"jme": OWN}}, "own_samplers.jme: no variant has this method. Did you mean jem?"),
    ({"metrics": ["clean_acuracy"]}, "metrics: metric 'clean_acuracy' is unknown. Did you mean clean_acc"),
    ({"metrics": ["clean_accuracy"] * 2}, "metrics names clean_accuracy twice"),
    ({"evaluation": {"epss": [1.0]}}, "evaluation.epss is no setting. Did you mean evaluation.eps?"),
    ({"evaluation": {"eps": [-1.0]}}, "evaluation: evaluation.eps and validation_eps must be finite radii"),
    ({"evaluation": {"eps": "far"}}, "evaluation: eps is 'far'"),
    ({"evaluation": {"ood_images": 50}}, "evaluation.ood_images is read by none of `metrics`"),
    (
        {"metrics": ["ood"], "evaluation": {"ood_scores": ["max_softmx"]}},
        "evaluation.ood_scores: 'max_softmx' is no score. Did you mean max_softmax?",
    ),
    (
        {"metrics": ["ood"], "evaluation": {"ood_sources": ["uniform", "/not/there"]}},
        "evaluation.ood_sources: '/not/there' is neither a folder nor one of",
    ),
    (
        {"metrics": ["ood"], "evaluation": {"ood_sources": ["unifrom"]}},
        "Did you mean uniform?",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG, ids=lambda value: str(value)[:50])
def test_mistakes_are_refused_before_training(root, trained, capsys, change, sentence):
    write_study(root, STUDY | change)
    refused(
        capsys, trained, f"studies/tiny/study.yaml: {sentence}" if "uniform?" not in sentence else sentence
    )


def refused(capsys, trained, sentence, code=2, args=()):
    assert call(*args) == code
    told = capsys.readouterr()
    assert sentence in told.err
    assert told.err.startswith("dualat: ") and told.err.count("\n") == 1
    assert "Traceback" not in told.err and "pydantic" not in told.err and not told.out
    assert not trained


@pytest.mark.parametrize("key", ["title", "base", "variants", "seeds", "metrics"])
def test_a_key_that_is_missing_is_named(root, trained, capsys, key):
    write_study(root, {k: v for k, v in STUDY.items() if k != key})
    refused(capsys, trained, f"studies/tiny/study.yaml: {key} is missing")


@pytest.mark.parametrize("text", ["title: [", "- a", ""])
def test_a_file_that_is_no_study(root, trained, capsys, text):
    write_study(root, text)
    refused(capsys, trained, "studies/tiny/study.yaml")


def test_an_unknown_study_has_its_nearest_name(root, trained, capsys):
    assert call(name="tinny") == 2
    assert "there is no study 'tinny'. Did you mean tiny?" in capsys.readouterr().err


def test_both_forms_of_own_samplers_are_lists_afterwards():
    for own in (OWN, [OWN], [OWN, SAMPLERS[0]]):
        study = plan.checked(STUDY | {"own_samplers": {"jem": own}})
        assert study.own_samplers == {"jem": own if isinstance(own, list) else [own]}


def test_the_studies_of_the_repository_are_valid():
    for path in STUDIES.glob("*/study.yaml"):
        run.read_study(path.parent.name)


def test_missing_data_and_errors_of_training_are_one_sentence(root, trained, capsys, monkeypatch):
    data = {"source": "fashion-mnist", "root": str(root / "nothing")}
    write_study(root, merge(STUDY, {"variants": {"late": {"data": data}}}))
    refused(capsys, trained, str(root / "nothing"), code=1)  # before the first variant, whose data is there
    write_study(root, QUIET)

    def fails(config, resume):
        raise OSError(28, "No space left on device", "some/file")

    monkeypatch.setattr(run.dualat, "train", fails)
    assert call("--only", "at", "--seeds", "0") == 1
    assert capsys.readouterr().err.splitlines()[-1] == "dualat: some/file: No space left on device."
    assert call("--only", "at", "--seeds", "0", "--debug") == 1
    assert "Traceback" in capsys.readouterr().err


def test_weights_that_a_metric_needs_are_missed_before_training(root, trained, capsys):
    metrics, weights = STUDY["metrics"] + ["inception"], str(root / "no-weights.pth")
    write_study(
        root, STUDY | {"metrics": metrics, "evaluation": {"eps": [0.1], "inception_weights": weights}}
    )
    refused(capsys, trained, "no-weights.pth", code=1)


# What is asked for.


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (("--only", "at", "jme"), "--only: tiny has no 'jme'. Did you mean jem?"),
        (("--seeds", "0", "7"), "--seeds: tiny has no 7. There are 0, 1."),
    ],
)
def test_only_variants_and_seeds_of_the_plan(root, trained, capsys, args, sentence):
    refused(capsys, trained, sentence, args=args)


def test_a_part_is_made_and_what_is_made_is_not_made_again(root, trained):
    write_study(root, QUIET)
    assert call("--only", "jem", "--seeds", "1") == 0
    assert list(records(root)) == ["jem-seed1"]
    assert call() == 0
    assert trained == [f"runs/studies/tiny/{of}" for of in ("jem-seed1", "at-seed0", "jem-seed0", "at-seed1")]
    assert call() == 0 and len(trained) == 4


def test_run_folders_lie_in_the_repository_whatever_the_working_directory(root, trained, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (root / "runs").symlink_to(tmp_path / "elsewhere")
    write_study(root, QUIET)
    assert call("--only", "at", "--seeds", "0") == 0
    assert (tmp_path / "elsewhere" / "studies" / "tiny" / "at-seed0" / "config.yaml").is_file()
    assert records(root)["at-seed0"]["config"]["output"] == "runs/studies/tiny/at-seed0"


def test_the_repository_is_where_the_script_was_called(tmp_path):
    (tmp_path / "studies").symlink_to(STUDIES)
    spec = importlib.util.spec_from_file_location("by_link", tmp_path / "studies" / "run.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.HERE.parent == tmp_path


def test_list_tells_what_was_begun_and_what_another_process_is_at(root, capsys):
    write_study(root, QUIET | {"seeds": [0, 1, 2]})
    (root / "runs" / "studies" / "tiny" / "at-seed0").mkdir(parents=True)
    with run.locked(root / "runs" / "studies" / "tiny" / "at-seed1"):
        assert call("--list") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert "missing  at, seed 0: begun" in lines and "missing  at, seed 2" in lines
    assert "missing  at, seed 1: another process is at it" in lines
    assert lines[-1] == "missing: 6 runs; how long they take is known when the first is made"


def test_a_variant_that_is_there_twice_and_settings_that_are_not_read_are_refused(root, capsys):
    path = root / "studies" / "tiny" / "study.yaml"
    write_study(root, merge(QUIET, {"variants": {"jem": {"method": "jem", "attack": {"eps": 100}}}}))
    assert call("--list") == 2  # although that eps is wrong too, for a method that reads it
    assert "attack.eps has no effect on method jem" in capsys.readouterr().err
    path.write_text("title: Twice\nvariants:\n  a: {}\n  a: {method: jem}\n")
    assert call("--list") == 2
    assert "a is in line 3 and again in line 4: keep one." in capsys.readouterr().err


def test_list_tells_what_is_made_and_what_is_missing(root, trained, capsys, monkeypatch):
    write_study(root, QUIET | {"seeds": [0, 1, 2]})
    monkeypatch.setattr(run, "time", clock(0, 10, 100, 130, 200, 220))
    assert call("--only", "at") == 0  # 10, 30 and 20 s
    (root / "studies" / "tiny" / "records" / "strange.json").write_text(json.dumps(records(root)["at-seed0"]))
    changed = merge(QUIET, {"base": {"attack": {"eps": 0.15}}, "seeds": [0, 1, 2]})
    write_study(root, changed)
    capsys.readouterr()
    before = len(trained)
    assert call("--list") == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "tiny: 3 of 6 runs are made"
    assert "made     at, seed 1: diverged, 30 s  (made with other settings than study.yaml has now)" in lines
    assert "missing  jem, seed 2" in lines and "of no run of the plan: strange.json" in lines
    assert lines[-1] == "missing: about 60 s (0.0 h), 3 runs of 20 s, the median"
    assert call("--list", "--only", "at") == 0
    assert "tiny: 3 of 3 runs are made" in capsys.readouterr().out
    assert call("--only", "at") == 0  # nothing to make, but that is said
    told = "made with other settings than study.yaml has now, and left as it is: at, seed 0; at, seed 1; at, seed 2"
    assert told in "".join(capsys.readouterr())
    assert len(trained) == before


def clock(*times):
    """Stands in for `time` with these readings."""
    readings = iter(times)
    return SimpleNamespace(perf_counter=lambda: next(readings))


# What a run keeps in its folder.


def test_a_folder_of_other_settings_is_refused(root, trained, capsys):
    write_study(root, QUIET)
    assert call() == 0
    folder, record = root / "runs/studies/tiny/jem-seed1", root / "studies/tiny/records/jem-seed1.json"
    record.unlink()
    (folder / "model.safetensors").touch()  # trained to its end
    trained.clear()
    capsys.readouterr()
    write_study(root, merge(QUIET, {"variants": {"jem": {"chain": {"buffer": 30}}}}))
    refused(capsys, trained, "chain.buffer: there 20, here 30", code=1)
    assert call() == 1
    told = capsys.readouterr().err
    for part in ("runs/studies/tiny/jem-seed1", "studies/tiny/records/jem-seed1.json", "remove", "restore"):
        assert part in told
    assert not record.exists()
    write_study(root, merge(QUIET, {"base": {"stability": {"limit": 50.0}}}))
    refused(capsys, trained, "stability.limit: there 1000.0, here 50.0", code=1)


def test_a_folder_of_the_same_settings_is_gone_on_with(root, trained):
    write_study(root, QUIET)
    assert call() == 0
    for path in (root / "studies/tiny/records").glob("*.json"):
        path.unlink()
    known = root / "runs/studies/tiny/jem-seed1/config.yaml"
    values = yaml.safe_load(known.read_text()) | {"output": "/elsewhere"}
    del values["deterministic"], values["sampling"]["start_noise"]  # settings that came later
    known.write_text(yaml.safe_dump(values))
    for folder in (root / "runs/studies/tiny").iterdir():
        write_outcome(folder, "running", [])
    assert call() == 0 and len(trained) == 8


def test_what_diverged_for_good_is_not_trained_again(root, trained):
    write_study(root, QUIET)
    assert call() == 0 and len(trained) == 4
    before = records(root)
    for path in (root / "studies/tiny/records").glob("*.json"):
        path.unlink()
    assert call() == 0 and len(trained) == 4
    assert {name: r["divergences"] for name, r in records(root).items()} == {
        name: r["divergences"] for name, r in before.items()
    }
    (root / "studies/tiny/records/at-seed0.json").unlink()
    write_outcome(root / "runs/studies/tiny/at-seed0", "running", [])
    assert call() == 0 and len(trained) == 5


def test_weights_alone_do_not_end_a_run(root, trained):
    """They are written before the outcome: a kill between the two must not give a record without figures."""
    write_study(root, QUIET)
    folder = root / "runs/studies/tiny/at-seed0"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").touch()
    assert call("--only", "at", "--seeds", "0") == 0
    assert len(trained) == 1 and records(root)["at-seed0"]["outcome"] == "diverged"


def test_a_divergence_that_may_be_restarted_is_no_end(tmp_path):
    config = run.RunConfig()
    entry = {"stage": 1, "step": 1, "loss": "nan", "gradient_norm": "nan"}
    write_outcome(tmp_path, "diverged", [entry])
    assert run.is_over(tmp_path, config)
    config.stability.on_divergence, config.stability.restarts = "restart", 1
    assert not run.is_over(tmp_path, config)
    write_outcome(tmp_path, "diverged", [entry, entry])
    assert run.is_over(tmp_path, config)


def test_seconds_are_those_of_all_processes(root, trained, monkeypatch, capsys):
    write_study(root, QUIET)
    diverge = run.dualat.train

    def stops(config, resume):
        if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
            os.kill(os.getpid(), signal.SIGTERM)
        raise AssertionError("nobody listens to signals")

    monkeypatch.setattr(run.dualat, "train", stops)
    monkeypatch.setattr(run, "time", clock(0, 5))
    assert call() == 0  # stopped in the first run, and goes on with no other
    assert "`python studies/run.py tiny` goes on" in "".join(capsys.readouterr())
    assert not records(root)
    monkeypatch.setattr(run.dualat, "train", diverge)
    monkeypatch.setattr(run, "time", clock(100, 107))
    assert call("--only", "at", "--seeds", "0") == 0
    assert records(root)["at-seed0"]["seconds"] == 12


def test_stopped_by_training_itself(root, monkeypatch):
    write_study(root, QUIET)
    begun = []

    def stops(config, resume):
        begun.append(config.output)
        raise Stopped("stopped by SIGTERM.")

    monkeypatch.setattr(run.dualat, "train", stops)
    assert call() == 0 and len(begun) == 1


def test_a_run_that_another_process_is_at_is_left_out(root, trained, capsys):
    write_study(root, QUIET)
    folder = root / "runs/studies/tiny/at-seed0"
    folder.mkdir(parents=True)
    with open(folder / "lock", "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert call("--seeds", "0") == 0
        assert "at, seed 0 is left out: another process is at it" in "".join(capsys.readouterr())
    assert list(records(root)) == ["jem-seed0"]
    assert call("--seeds", "0") == 0
    assert list(records(root)) == ["at-seed0", "jem-seed0"]


def test_a_run_holds_its_lock(root, trained, monkeypatch):
    write_study(root, QUIET)
    diverge = run.dualat.train

    def train(config, resume):
        with open(Path(config.output) / "lock") as handle, pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        diverge(config, resume)

    monkeypatch.setattr(run.dualat, "train", train)
    assert call("--seeds", "0") == 0 and len(trained) == 2


def test_a_run_that_another_process_made_meanwhile_is_not_made_again(root, trained, monkeypatch):
    write_study(root, QUIET)
    locked = run.locked

    @contextmanager
    def after_another(folder):
        record = root / "studies/tiny/records/at-seed0.json"
        record.parent.mkdir(exist_ok=True)
        record.write_text("{}")
        with locked(folder) as mine:
            yield mine

    monkeypatch.setattr(run, "locked", after_another)
    assert call("--only", "at", "--seeds", "0") == 0
    assert not trained and records(root) == {"at-seed0": {}}


@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ({"stage1": STAGE | {"accumulate": 5}}, "variants.odd: batch_size is 16, which cannot be divided"),
        (
            {"method": "at-ebm", "loss": {"energy": 0.0}},
            "variants.odd: loss.energy is 0, but the method has no",
        ),
    ],
)
def test_what_only_the_data_or_the_method_shows_is_checked_before_too(
    root, trained, capsys, variant, expected
):
    write_study(root, QUIET | {"variants": {"at": None, "odd": variant}})
    assert call() == 2 and not trained
    assert expected in capsys.readouterr().err


def test_a_finished_run_has_its_plan_sampler_and_figures(finished):
    made = records(finished)
    assert list(made) == ["at-seed0", "jem-seed0"]
    at, jem = made.values()
    shared = {"metrics": STUDY["metrics"], "evaluation": STUDY["evaluation"], "samplers": SAMPLERS}
    assert at["plan"] == shared | {"own_samplers": []} and jem["plan"] == shared | {"own_samplers": [OWN]}
    assert [len(r["samplers_tried"]) for r in (at, jem)] == [2, 3]
    best = min(jem["samplers_tried"], key=lambda tried: tried["validation_frechet"])
    assert all(jem["sampler"][key] == value for key, value in best.items() if key != "validation_frechet")
    radii = {r["settings"]["eps"] for r in at["records"] if r["metric"] == "robust_accuracy"}
    assert 0.1 in radii and 0.2 not in radii  # the study's evaluation, and not that of `base`
    assert at["outcome"] == "finished" and at["seconds"] > 0
    assert at["device"] and at["precision"] in ("float32", "bfloat16")  # what `precision: auto` was
    study = reading.read_study(finished / "studies" / "tiny")
    assert study.outdated() == [] and study.left_out == [] and study.made == 2


def test_without_samplers_and_evaluation_the_configurations_own_are_used(copied):
    lean = {k: v for k, v in STUDY.items() if k not in ("samplers", "own_samplers", "evaluation")}
    write_study(copied, lean | {"metrics": ["robust_accuracy"]})
    (copied / "studies/tiny/records/at-seed0.json").unlink()
    assert call("--only", "at", "--seeds", "0") == 0
    made = records(copied)["at-seed0"]
    assert made["sampler"]["steps"] == 2 and made["samplers_tried"] == []
    radii = {r["settings"]["eps"] for r in made["records"] if r["metric"] == "robust_accuracy"}
    assert 0.2 in radii and 0.1 not in radii
    assert reading.read_study(copied / "studies" / "tiny").outdated() == ["jem, seed 0"]


def test_more_samplers_measure_the_new_ones_alone(copied, monkeypatch, trained):
    folder = copied / "studies/tiny"
    old = records(copied)["at-seed0"]
    (folder / "records" / "at-seed0.json").unlink()
    new = {"steps": 3, "step_size": 0.2}
    write_study(copied, STUDY | {"samplers": [new, *SAMPLERS]})
    measured, distance = [], samplers.validation_distance

    def counted(model, context, settings, target):
        measured.append(settings.steps)
        return distance(model, context, settings, target)

    monkeypatch.setattr(samplers, "validation_distance", counted)
    assert call("--only", "at", "--seeds", "0") == 0
    made = records(copied)["at-seed0"]
    assert measured == [3] and not trained
    assert made["samplers_tried"][1:] == old["samplers_tried"]
    assert made["seconds"] > old["seconds"]
    # distances of other weights are none of these
    kept = json.loads((copied / "runs/studies/tiny/at-seed0/samplers.json").read_text())
    kept["weights"] = "others"
    (copied / "runs/studies/tiny/at-seed0/samplers.json").write_text(json.dumps(kept))
    (folder / "records" / "at-seed0.json").unlink()
    assert call("--only", "at", "--seeds", "0") == 0
    assert measured == [3, 3, 1, 2]
    assert records(copied)["at-seed0"]["samplers_tried"] == made["samplers_tried"]


def test_a_sampler_without_a_distance_is_not_chosen(tmp_path, monkeypatch):
    distances = iter([math.nan, 3.0, 2.0])
    monkeypatch.setattr(samplers, "validation_distance", lambda *_: next(distances))
    (tmp_path / "model.safetensors").touch()
    judge = SimpleNamespace(features_of=lambda data: None)
    chosen, _ = samplers.choose_sampler(
        None,
        SimpleNamespace(validation=None),
        SimpleNamespace(judge=judge),
        [{"steps": 1}, {"steps": 2}, {"steps": 3}],
        tmp_path,
    )
    assert chosen.steps == 3


# Records that a page reads.


def a_record(variant="at", seed=0, **more):
    method = {"at": "standard-at", "mystery": "standard-at"}.get(variant, variant)
    config = plan.configuration(STUDY["base"], STUDY["variants"].get(variant), seed=seed, output="there")
    found = {"variant": variant, "seed": seed, "method": config.method}
    found |= {"outcome": "finished", "divergences": [], "curves": {}, "images_per_second": {}}
    found |= {"config": plain(config)}
    return json.loads(json.dumps(found | {"plan": plan.made_with(STUDY, method)} | more))


def read(folder, record, study=STUDY, name="at-seed0.json"):
    write_study(folder, study)
    path = folder / "studies/tiny/records" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(record if isinstance(record, str) else json.dumps(record))
    return reading.read_study(folder / "studies/tiny")


def without(values, *keys):
    *groups, last = keys
    inner = {k: v for k, v in values.items() if k != last}
    return inner if not groups else values | {groups[0]: without(values[groups[0]], *groups[1:], last)}


UP_TO_DATE = [
    STUDY,
    STUDY | {"samplers": SAMPLERS[::-1], "metrics": STUDY["metrics"][::-1]},
    STUDY | {"samplers": [s | {"clip": True} for s in SAMPLERS]},  # a default, said
    STUDY | {"own_samplers": {"jem": SAMPLERS}},  # of another method
    STUDY | {"seeds": [0, 5], "notes": "Seen."},
]
OUT_OF_DATE = [
    without(STUDY, "base", "evaluation", "steps"),
    without(STUDY, "base", "network"),
    STUDY | {"metrics": ["clean_accuracy"]},
    STUDY | {"evaluation": {"eps": [0.1], "robust_images": 30}},
    STUDY | {"samplers": [*SAMPLERS, {"steps": 9}]},
    STUDY | {"samplers": SAMPLERS[:1]},
    STUDY | {"own_samplers": {"standard-at": OWN}},
]


@pytest.mark.parametrize("study", UP_TO_DATE)
def test_records_of_the_same_plan_are_not_outdated(tmp_path, study):
    assert read(tmp_path, a_record(), study).outdated() == []


@pytest.mark.parametrize("study", OUT_OF_DATE)
def test_records_of_another_plan_are_outdated(tmp_path, study):
    assert read(tmp_path, a_record(), study).outdated() == ["at, seed 0"]


def test_a_setting_of_default_value_may_be_left_out(tmp_path):
    shorter = without(STUDY, "base", "attack", "step_size")  # 0.1
    assert read(tmp_path, a_record(), shorter).outdated() == []


def test_settings_that_are_younger_than_a_record_have_their_defaults(tmp_path):
    record = a_record()
    del record["config"]["deterministic"], record["config"]["sampling"]["start_noise"]
    assert read(tmp_path, record).outdated() == []


def test_older_records_have_their_method_s_settings_at_the_top(tmp_path):
    """And those of other methods too, which make no difference, and None for what a method publishes."""
    old = merge(STUDY["base"], STUDY["variants"]["at"] or {}) | {
        "stages": "both",
        "seed": 0,
        "output": "there",
    }
    old = old | {"chain": {"steps": None, "buffer": 7}, "diffusion": {"sigma_max": 0.7}}
    assert read(tmp_path, a_record(config=old)).outdated() == []
    other = old | {"attack": old.get("attack", {}) | {"step_size": 0.11}}
    assert read(tmp_path, a_record(config=other)).outdated() == ["at, seed 0"]


def test_records_without_a_plan_are_held_by_their_samplers(tmp_path):
    old = without(a_record(), "plan")
    tried = [s | {"validation_frechet": 1.0} for s in SAMPLERS]
    assert read(tmp_path, old).outdated() == []  # nothing is known
    assert read(tmp_path, old | {"samplers_tried": tried}).outdated() == []
    assert read(tmp_path, old | {"samplers_tried": tried[:1]}).outdated() == ["at, seed 0"]
    assert read(tmp_path, old | {"samplers_tried": tried, "outcome": "diverged"}).outdated() == []


def test_of_a_run_that_diverged_nothing_was_measured(tmp_path):
    other = STUDY | {"metrics": ["clean_accuracy"]}
    assert read(tmp_path, a_record(outcome="diverged"), other).outdated() == []


def test_samplers_of_at_ebm_know_no_classes():
    made = plan.made_with(STUDY | {"own_samplers": {"at-ebm": OWN}}, "at-ebm")
    assert {s["energy"] for s in made["samplers"] + made["own_samplers"]} == {"marginal"}


@pytest.mark.parametrize(
    "text", ["", json.dumps(a_record())[:200], "[]"], ids=["empty", "cut off", "no object"]
)
def test_a_damaged_record_is_named(tmp_path, text):
    with pytest.raises(ValueError, match=r"at-seed0.json is damaged: remove it, and .*run.py tiny`\.$"):
        read(tmp_path, text)


@pytest.mark.parametrize("key", ["variant", "outcome", "divergences", "config"])
def test_a_record_that_lacks_a_key_is_named(tmp_path, key):
    with pytest.raises(ValueError, match=rf"at-seed0.json is no complete record, it has no {key}: remove it"):
        read(tmp_path, without(a_record(), key))


def test_records_of_no_run_of_the_plan_are_listed(tmp_path):
    read(tmp_path, a_record())
    read(tmp_path, a_record("mystery"), name="mystery-seed0.json")
    read(tmp_path, a_record(), name="at-seed0 (copy).json")
    study = read(tmp_path, a_record(seed=9), name="at-seed9.json")
    assert study.left_out == ["at-seed0 (copy).json", "at-seed9.json", "mystery-seed0.json"]
    assert study.made == 1


def test_pages_need_no_torch():
    code = (
        "import sys, reading, page; studies = reading.read_studies(page.HERE); "
        "[study.outdated() for study in studies.values()]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=STUDIES).returncode == 0


def test_cost_times_every_stage_of_every_variant_at_its_ts(tmp_path):
    of_dat = {
        "method": "dat",
        "contrastive": {"t_max": 4},
        "stage2": STAGE,
        "stage1": STAGE | {"batch_size": 8},
    }
    study = plan.checked(QUIET | {"variants": {"at": None, "dat": of_dat}})
    found = cost.measure(asdict(study), rounds=1)
    assert {
        v: {s: list(by_t) for s, by_t in stages.items()} for v, stages in found["seconds_per_step"].items()
    } == {
        "at": {"1": ["0"]},
        "dat": {"1": ["0"], "2": ["0", "2"]},
    }
    assert found["precision"] == "float32" and found["variants"] == study.variants
    steps = found["seconds_per_step"]
    assert steps["dat"]["2"]["2"] > 0 and steps["at"]["1"]["0"] > 0
