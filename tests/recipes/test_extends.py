"""A recipe that extends another is that one with its own lines on top; circles and missing files are one sentence."""

from pathlib import Path

import pytest
import yaml

from dualat.config import load_recipe, to_yaml
from dualat.recipes.reading import recipe_names, recipe_text, recipe_values
from dualat.short_form import leaves


def write(folder: Path, name: str, text: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(text)
    return str(folder / name)


def test_own_lines_count_and_all_else_is_the_others(tmp_path: Path):
    mine = write(
        tmp_path, "mine.yaml", "extends: digits\nattack: {eps: 0.3}\nstage2: {optimizer: {lr: 0.5}}\n"
    )
    assert load_recipe(mine) == load_recipe("digits", {"attack.eps": 0.3, "stage2.optimizer.lr": 0.5})
    assert load_recipe(mine, {"attack.eps": 0.2}).stages[1].method.attack.eps == 0.2  # type: ignore[attr-defined]


def test_the_parts_of_a_mixture_are_given_as_a_whole(tmp_path: Path):
    first = "extends: digits\ninitial: {kind: mixture, parts: {class-gaussian: 0.5, uniform: 0.5}}\n"
    write(tmp_path, "base.yaml", first)
    mine = write(tmp_path, "mine.yaml", "extends: base.yaml\ninitial: {parts: {normal: 1, uniform: 3}}\n")
    config = load_recipe(mine)
    assert config.initial.parts == {"normal": 1, "uniform": 3}
    assert load_recipe(write(tmp_path, "again.yaml", to_yaml(config))) == config
    override = {"initial.parts": {"smooth-noise": 1, "gaussian": 1}}
    assert set(load_recipe(mine, override).initial.parts) == {"smooth-noise", "gaussian"}
    with pytest.raises(ValueError, match="noise"):
        load_recipe(mine, {"initial.parts": {"noise": 1, "gaussian": 1}})


def test_samples_start_from_a_part_that_there_is(tmp_path: Path):
    parts = {"initial.kind": "mixture", "initial.parts": {"uniform": 1, "normal": 1}}
    assert load_recipe("digits", {**parts, "sampling.start": "normal"}).sampling.start == "normal"
    with pytest.raises(ValueError, match="sampling.start is 'gaussian', .*its parts are uniform, normal"):
        load_recipe("digits", {**parts, "sampling.start": "gaussian"})
    with pytest.raises(ValueError, match="sampling.start is 'uniform', .*it is no mixture"):
        load_recipe("digits", {"sampling.start": "uniform"})


def test_chains_lead_from_each_file_to_the_next_and_paths_begin_at_the_file(tmp_path: Path, monkeypatch):
    write(tmp_path, "base.yaml", "extends: digits\nseed: 3\nstage1: {steps: 7}\n")
    write(tmp_path / "deep", "middle.yml", "extends: ../base.yaml\nstage1: {steps: 8}\n")
    last = write(tmp_path, "last.yaml", "extends: deep/middle.yml\nstage1: {batch_size: 9}\n")
    for place in (tmp_path, tmp_path / "deep"):
        monkeypatch.chdir(place)
        config = load_recipe(last)
        assert (config.seed, config.stages[1].steps, config.stages[1].batch_size) == (3, 8, 9)


def test_the_written_configuration_is_complete_and_says_nothing_of_it(tmp_path: Path):
    mine = write(tmp_path, "mine.yaml", "extends: digits\nseed: 5\n")
    text = to_yaml(load_recipe(mine))
    assert "extends" not in text
    assert load_recipe(write(tmp_path, "again.yaml", text)) == load_recipe(mine)


@pytest.mark.parametrize("complete", [True, False], ids=["complete", "short"])
def test_a_recipe_of_either_form_can_be_extended(tmp_path: Path, complete: bool):
    write(tmp_path, "base.yaml", to_yaml(load_recipe("digits")) if complete else "extends: digits\n")
    groups = "extends: base.yaml\nattack: {eps: 0.4}\nstage2: {method: {contrastive: {t_max: 3}}}\nstage1:\n"
    config = load_recipe(write(tmp_path, "mine.yaml", groups))
    at, dat = (config.stages[number].method for number in (1, 2))
    assert at.attack.eps == dat.attack.eps == 0.4 and dat.contrastive.t_max == 3  # type: ignore[attr-defined]
    assert config.stages[1].steps == 300, "an empty group changes nothing"
    assert load_recipe(write(tmp_path, "jem.yaml", "extends: base.yaml\nmethod: jem\n")).method == "jem"
    if complete:
        text = "extends: base.yaml\nstage1: {method: {name: ratio}}\n"
        config = load_recipe(write(tmp_path, "ratio.yaml", text))
        assert [stage.method.name for stage in config.stages.values()] == ["ratio", "dat"]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.yaml": "extends: a.yaml"}, "extends itself"),
        (
            {"a.yaml": "extends: b.yaml", "b.yaml": "extends: c.yaml", "c.yaml": "extends: b.yaml"},
            "extends itself",
        ),
        ({"a.yaml": "extends: digit"}, "'digit' is unknown. Did you mean digits?"),
        ({"a.yaml": "extends: b.yaml"}, "b.yaml, which does not exist"),
        ({"a.yaml": "extends: [digits]"}, "extends is ['digits'] in recipe"),
        ({"a.yaml": "extends:"}, "extends is None in recipe"),
        ({"a.yaml": "extends: digits\nexends: b"}, "exends is no setting"),
        ({"a.yaml": "extends: digits\nstage1: 5"}, "stage1 is 5, but is a group of settings"),
        ({"a.yaml": "extends: digits\n3: 5"}, "3 is no setting"),
        ({"a.yaml": "extends: digits\nseed: {a: 1}"}, "seed.a is no setting"),
        ({"a.yaml": "extends: b.yaml", "b.yaml": "- 1"}, "b.yaml must be a mapping of settings"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_sentence(tmp_path: Path, files: dict[str, str], message: str):
    for name, text in files.items():
        write(tmp_path, name, text)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_recipe(str(tmp_path / "a.yaml"))
    assert message in str(caught.value) and "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_extends_is_for_files_alone():
    with pytest.raises(ValueError, match="extends is no setting"):
        load_recipe("digits", {"extends": "cifar10"})


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_state_only_what_differs_from_the_one_that_they_extend(name: str):
    own = yaml.safe_load(recipe_text(name))
    if "extends" not in own:
        return
    base = dict(leaves(recipe_values(own.pop("extends"))))
    assert not [key for key, value in leaves(own) if key in base and base[key] == value]
