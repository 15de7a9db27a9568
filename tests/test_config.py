"""Configuration: mistakes answered by the nearest right name, contradictions refused, recipes complete."""

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from dualat.config import (
    RunConfig,
    build_config,
    changed,
    is_used,
    load_recipe,
    merge,
    nearest_settings,
    plain,
    setting_names,
    to_yaml,
)
from dualat.methods.registry import DATSettings, StandardATSettings
from dualat.recipes.reading import recipe_names, recipe_values


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_states_what_it_depends_on(name):
    """A recipe leaves nothing of consequence to defaults, which may change."""
    config = load_recipe(name)
    written = recipe_values(name)
    groups = {"method", "data", "network", "initial", "sampling", "evaluation"}
    groups |= {f"stage{number}" for number in config.stages}
    groups |= {group for row in config.rows for group in row.groups} - {"loss"}
    assert groups <= set(written)
    for stage in config.stages.values():
        assert (stage.epochs is None) != (stage.steps is None)
    if config.method == "dat":
        assert config.stages[2].freeze_batchnorm and config.stages[2].optimizer.clip_norm is None
        assert sorted(config.stages) == [1, 2] or (sorted(config.stages) == [2] and config.weights)


def test_the_recipes_of_the_first_issue_are_there():
    assert {"digits", "fashion-mnist", "cifar10"} <= set(recipe_names())


def test_cifar10_is_the_papers_row():
    config = load_recipe("cifar10")
    at, dat = (config.stages[number].method for number in (1, 2))
    assert isinstance(at, StandardATSettings) and isinstance(dat, DATSettings) and at.attack == dat.attack
    assert config.network.name == "wrn-34-10" and dat.contrastive.t_max == 50
    assert (at.attack.norm, at.attack.eps, at.attack.steps) == ("L2", 0.5, 10)
    assert (dat.contrastive.auc_threshold, dat.contrastive.step_size) == (0.8, 0.1)


@pytest.mark.parametrize("name", recipe_names())
def test_a_resolved_configuration_survives_yaml(name):
    stage = f"stage{min(load_recipe(name).stages)}"
    overrides = {
        f"{stage}.optimizer.lr": 1e-5,
        f"{stage}.optimizer.clip_norm": 1e20,
        "evaluation.eps": [0.1, 1e-7],
        "evaluation.validation_eps": 1e-7,
        "output": "runs/größer: # 'q'",
        "weights": "null",
    }
    config = load_recipe(name, overrides)
    again = build_config(yaml.safe_load(to_yaml(config)))
    assert again == config
    assert again.evaluation.eps == (0.1, 1e-7) and again.weights == "null"
    assert to_yaml(again) == to_yaml(config)


def test_written_yaml_is_complete_and_plain(tmp_path: Path):
    text = to_yaml(load_recipe("digits"))

    def names(values: dict, prefix: str = "") -> set[str]:
        found = set()
        for key, value in values.items():
            found.add(prefix + key)
            if isinstance(value, dict):
                found |= names(value, f"{prefix}{key}.")
        return found

    written = {name for name in names(yaml.safe_load(text)) if ".method" not in name}
    known = {name for name in setting_names() if name in written or is_used(load_recipe("digits"), name)}
    groups = {name for row in load_recipe("digits").rows for name in row.groups}
    of_methods = {name for name in known if name.split(".")[0] in groups}
    assert written == known - of_methods - {"method", "stages"} and "!!" not in text
    assert {f"stage2.method.{name}" for name in of_methods} <= names(yaml.safe_load(text))
    (tmp_path / "mine.yaml").write_text(text)
    assert load_recipe(str(tmp_path / "mine.yaml")) == load_recipe("digits")


def test_overrides_change_what_they_name_and_nothing_else():
    config = load_recipe("digits", {"stage2.optimizer.lr": 0.5, "seed": 7})
    assert config.stages[2].optimizer.lr == 0.5 and config.seed == 7
    base = load_recipe("digits")
    config.stages[2].optimizer.lr, config.seed = base.stages[2].optimizer.lr, base.seed
    assert config == base


def test_groups_are_merged_not_replaced():
    base = {"a": 1, "group": {"x": 1, "y": 2}}
    assert merge(base, {"group": {"y": 3}}) == {"a": 1, "group": {"x": 1, "y": 3}}
    assert base["group"]["y"] == 2
    assert load_recipe("digits").stages[2].optimizer.momentum == RunConfig().stages[2].optimizer.momentum


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("stage2.optimizer.lrr", "stage2.optimizer.lr"),
        ("stage1.step", "stage1.steps"),
        ("atack", "attack"),
        ("contrastive.tmax", "contrastive.t_max"),
        ("sede", "seed"),
        ("evaluation.validation_ep", "evaluation.validation_eps"),
        ("t_max", "contrastive.t_max"),
    ],
)
def test_unknown_keys_are_named_with_the_nearest_right_name(key, nearest):
    with pytest.raises(ValueError) as caught:
        load_recipe("digits", {key: 1})
    assert f"{key} is no setting. Did you mean {nearest}?" in str(caught.value)
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_all_settings_of_the_name_are_offered():
    """`steps` alone may be any of several; in a group that has it, it is that one."""
    assert nearest_settings("lr") == ["stage1.optimizer.lr", "stage2.optimizer.lr"]
    assert nearest_settings("stage1.lr") == ["stage1.optimizer.lr"]
    with pytest.raises(ValueError, match=r"Did you mean attack\.eps, out\.eps or evaluation\.eps\?"):
        build_config({"eps": 1})


def test_a_key_that_is_there_twice_is_refused(tmp_path):
    """YAML's readers take the last one, and a copied line is lost without a word."""
    path = tmp_path / "twice.yaml"
    path.write_text("method: dat\nstage1: {steps: 5}\nmethod: jem\n")
    with pytest.raises(
        ValueError, match=r"twice\.yaml is no valid YAML: method is in line 1 and again in line 3: keep one"
    ):
        load_recipe(str(path))


def test_far_names_bring_no_suggestion():
    assert nearest_settings("qqqqqq") == []
    with pytest.raises(ValueError, match=r"^qqqqqq is no setting\.$"):
        build_config({"qqqqqq": 1})


def test_every_mistake_is_told_at_once():
    with pytest.raises(ValueError) as caught:
        build_config({"sead": 1, "attack": {"epss": 1, "steps": "many"}})
    assert all(text in str(caught.value) for text in ("sead", "attack.epss", "attack.steps is 'many'"))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"method": "standard-at", "stages": "2"}, "standard-at has one stage"),
        ({"stages": "2"}, "weights"),
        ({"stage1.epochs": 3}, "epochs is 3.0 and steps is 300"),
        ({"stage1.steps": None}, "epochs is None and steps is None"),
        ({"stage1.steps": 0}, "positive"),
        ({"evaluation.validation_eps": 0.3}, "validation_eps is 0.3"),
        ({"evaluation.eps": []}, "evaluation.eps"),
        ({"attack.eps": 4.0}, "cannot reach"),
        ({"attack.eps": float("inf")}, "attack.eps is inf"),
        ({"attack.norm": "l2"}, "attack.norm is 'l2'.*'L2' or 'Linf'"),
        ({"contrastive.auc_threshold": 1.2}, "auc_threshold is 1.2"),
        ({"network.drop_path": 0.1}, "drop_path"),
        ({"network.pretrained": True}, "pretrained"),
        ({"data.image_size": 32}, "image_size.*folders"),
        ({"data.source": "photos"}, "image_size is missing"),
        ({"initial.kind": "images"}, "source"),
        ({"initial.kind": "uniform", "initial.blur": 1.0}, "blur does nothing"),
        ({"method": "jam"}, "method is 'jam'"),
        ({"seed": "x"}, "seed is 'x'.*integer"),
        ({"stage2.batch_size": 1}, "batch_size"),
        ({"stage2.optimizer.clip_norm": 0.0}, "clip_norm"),
        ({"loss.energy": -1.0}, "loss.cross_entropy, energy and r1"),
        ({"stage1": 5}, "stage1"),
        ({"stage3.steps": 5}, "stage3 is no setting"),
        ({"method.name": "dat"}, "method"),
        ({"network.name.depth": 10}, "network.name"),
    ],
    ids=str,
)
def test_contradictions_and_impossible_values_are_refused_in_a_sentence(overrides, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_recipe("digits", overrides)
    assert "\n" not in str(caught.value)


def test_an_attack_that_just_reaches_its_edge_is_allowed():
    """6 * 0.15 is 0.8999... in floating point."""
    config = load_recipe("digits", {"attack.eps": 0.9, "attack.steps": 6, "attack.step_size": 0.15})
    assert [stage.method.attack.eps for stage in config.stages.values()] == [0.9, 0.9]  # type: ignore[attr-defined]


def test_the_cifar10_recipes_own_advice_works(tmp_path: Path):
    """Its header says: --initial.kind images --initial.source FOLDER."""
    config = load_recipe("cifar10", {"initial.kind": "images", "initial.source": str(tmp_path)})
    assert config.initial.source == str(tmp_path)


def test_unknown_recipes_bring_the_nearest_name():
    with pytest.raises(
        ValueError, match=r"'digit' is unknown. Did you mean digits\?.*cifar10.*ends in \.yaml"
    ):
        load_recipe("digit")
    with pytest.raises(FileNotFoundError, match=r"nowhere\.yaml does not exist"):
        load_recipe("nowhere.yaml")


@pytest.mark.parametrize(
    "content",
    [b"a: [1", b"- 1\n- 2\n", b"just text", b"\xff\xfe\x00", b"1: 2\n", b"stage1: {1: 2}\n"],
    ids=str,
)
def test_files_that_are_no_recipe_are_refused(tmp_path: Path, content):
    path = tmp_path / "mine.yaml"
    path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        load_recipe(str(path))
    assert "\n" not in str(caught.value)


def test_an_empty_recipe_is_the_defaults(tmp_path: Path):
    (tmp_path / "empty.yml").write_text("")
    assert load_recipe(str(tmp_path / "empty.yml")) == RunConfig()


def test_settings_are_checked_when_they_are_changed_later():
    config = load_recipe("digits")
    with pytest.raises(ValueError, match="seed"):
        config.seed = "x"  # type: ignore[assignment]


def test_every_setting_has_one_dotted_name():
    names = list(setting_names())
    assert len(names) == len(set(names)) and "stage2.optimizer.clip_norm" in names


def test_reading_recipes_imports_neither_torch_nor_timm():
    code = (
        "import sys, dualat.config as c\nfrom dualat.recipes.reading import recipe_names\n"
        "[c.to_yaml(c.load_recipe(n)) for n in recipe_names()]\n"
        "print(*sorted({'torch', 'timm', 'torchvision', 'sklearn'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == ""


def recipe(tmp_path: Path, text: str) -> str:
    (tmp_path / "mine.yaml").write_text(text)
    return str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    "text",
    [
        "stage1: &s {steps: 5, epochs: null, optimizer: {lr: 0.2}}\nstage2: *s\n",
        "stage1: &s {steps: 5, epochs: null, optimizer: {lr: 0.2}}\nstage2: {<<: *s}\n",
    ],
    ids=["alias", "merge key"],
)
def test_an_override_of_one_stage_leaves_the_other_that_yaml_shares_with_it(tmp_path: Path, text):
    path = recipe(tmp_path, text)
    config = load_recipe(path, {"stage1.steps": 9, "stage1.optimizer.lr": 0.5})
    assert (config.stages[1].steps, config.stages[2].steps) == (9, 5)
    assert (config.stages[1].optimizer.lr, config.stages[2].optimizer.lr) == (0.5, 0.2)
    config.stages[1].steps = 7
    assert config.stages[2].steps == 5


def test_overrides_leave_what_they_are_given_alone():
    group = {"steps": 5, "epochs": None}
    load_recipe("digits", {"stage1": group, "stage1.batch_size": 9})
    assert group == {"steps": 5, "epochs": None}


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("compile: off", "compile", "off"),
        ("compile: on", "compile", "on"),
        ("precision: auto\nstage1:\n", "stages", RunConfig().stages),
        ("stage1: &s {optimizer: {lr: 0.5}}\nstage2: {<<: *s, steps: 3, epochs: null}", "method", "dat"),
        ("stages: 1", "method", "standard-at"),
    ],
)
def test_yaml_is_read_as_it_is_meant(tmp_path: Path, text, name, value):
    assert getattr(load_recipe(recipe(tmp_path, text)), name) == value


def test_an_empty_group_can_be_overridden(tmp_path: Path):
    path = recipe(tmp_path, "stage1:\n")
    assert load_recipe(path, {"stage1.batch_size": 9}).stages[1].batch_size == 9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("seed: yes", "seed is True, but is a number: YAML reads yes"),
        ("evaluation: {eps: [0.5, on]}", "evaluation.eps is .*YAML reads yes"),
        ("seed: 010", "010 in line 1 is a number in base 8 to YAML"),
        ("seed: 1:30", "1:30 in line 1 is a number in base 60"),
        ("attack: {eps: 1:30.5}", "base 60"),
        (
            "stage1: {epochs: None, steps: 5}",
            "stage1.epochs is the word None: what YAML writes for None is null",
        ),
        ("output: None", "output is the word None"),
        ("stage1: {epochs: 5, steps: 5}", "set the other to None, in YAML null"),
        ("output: 2024", "output is 2024, but is a word: write it in quotes"),
        ("stage1: 5", "stage1 is 5, but is a group of settings"),
        ("compile: maybe", "compile is 'maybe'"),
        ("seed: &a [*a]", "refers to itself"),
        (f"seed: {'[' * 1000}", "nested too deeply"),
        (f"seed: {'1' * 5000}", "no valid YAML"),
        (f"seed: 0x{'f' * 5000}", "seed is a number of"),
        ("seed: 2020-13-45", "no valid YAML"),
        ("seed: !!int ''", "no valid YAML"),
        ("{{a: 1}: 2}", "a key in line 1 is a list or a mapping: keys are words"),
        (
            "a: &a [1, 1]\n"
            + "\n".join(
                f"{k}: &{k} [*{p}, *{p}]"
                for p, k in zip("abcdefghijklmnopqr", "bcdefghijklmnopqrs", strict=True)
            ),
            "100,000 values",
        ),
        ("# " + "x" * 10**6, "too many for settings"),
    ],
    ids=lambda v: v[:20],
)
def test_what_yaml_makes_of_odd_text_is_one_sentence(tmp_path: Path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        load_recipe(recipe(tmp_path, text))
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 500


def test_a_mapping_that_another_extends_may_be_extended_before_it_is_read(tmp_path: Path):
    """`steps` is in the inner mapping once, and PyYAML writes merged keys into it where the other is read first."""
    text = "stage1: {optimizer: &o {<<: {lr: 0.5}, lr: 0.25}}\nrobust_augment: {kind: basic}\nstage2: {optimizer: {<<: *o}}"
    config = load_recipe(recipe(tmp_path, text))
    assert config.stages[1].optimizer.lr == config.stages[2].optimizer.lr == 0.25


def test_overrides_of_a_whole_configuration_count():
    config = changed(plain(load_recipe("digits")), {"seed": 3, "stage2.steps": 7})
    assert (config.seed, config.stages[2].steps) == (3, 7)


def test_a_key_that_is_no_word_is_one_sentence_beside_an_override(tmp_path):
    """The campaign's find: with an override it ended in a TypeError."""
    path = tmp_path / "recipe.yaml"
    path.write_text("method: dat\n~: 3\n")
    with pytest.raises(ValueError, match="recipe"):
        load_recipe(str(path), {"stage1.steps": 2})
