"""Settings: odd numbers are refused at the start and in a sentence, wherever settings are made; nothing is shared."""

import math
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from typing import Any, get_args, get_type_hints

import pytest
import torch

import dualat
from dualat.bench.settings import BenchSettings
from dualat.config import RunConfig, build_config, load_recipe
from dualat.core.sampler_settings import SamplingSettings
from dualat.methods.registry import METHODS, StandardATSettings, known_groups
from dualat.models.model import ModelDescription
from dualat.planning.settings import PlanSettings
from dualat.system.seeds import check_seed
from dualat.training.settings import StageSettings

NEVER = (-math.inf, math.nan, 1e308, 1e-320, -1e308, 10**400, True)
"""Numbers that no setting takes. 10^400 is beyond every float."""
COUNTS = (-1, 2**63, 2**64, -(2**63))
"""Numbers that no count and no seed takes."""
ENDLESS = {f"{stage}.optimizer.clip_norm" for stage in ("stage1", "stage2")} | {"stability.limit"}
"""Settings that take inf for no limit."""
CONTEXT: dict[str, dict[str, Any]] = {
    "initial.mean": {"kind": "normal"},
    "initial.std": {"kind": "normal"},
    "initial.blur": {"kind": "smooth-noise"},
    "robust_augment.scale": {"kind": "imagenet"},
    "energy_augment.scale": {"kind": "imagenet"},
    "energy_augment.cutout": {"kind": "strong"},
    "initial.augment.pad": {"kind": "basic"},
    "initial.augment.cutout": {"kind": "strong"},
    "initial.augment.scale": {"kind": "imagenet"},
    **{
        f"data.{n}": {"source": "x", "image_size": 8}
        for n in ("image_size", "test_resize", "memory_gib", "workers")
    },
    **{f"stage{s}.{n}": {"steps": None, "epochs": 5} for s in "12" for n in ("epochs",)},
    **{f"stage{s}.{n}": {"steps": 5, "epochs": None} for s in "12" for n in ("steps",)},
    **{f"stage{s}.optimizer.betas": {"name": "adamw"} for s in "12"},
    **{f"stage{s}.optimizer.{n}": {"schedule": "step"} for s in "12" for n in ("milestones", "gamma")},
}
"""What a setting needs beside it in its group to be read at all."""
IMAGES = {"initial.augment": {"kind": "images", "source": "x"}}


def numbers() -> Iterator[tuple[str, Any]]:
    """Dotted name and type of every setting of a recipe that is a number or several; one name once."""
    found = dict(numbers_of(RunConfig))
    for stage in ("stage1", "stage2"):
        found |= dict(numbers_of(StageSettings, f"{stage}."))
    for group, kind in known_groups():
        found |= dict(numbers_of(kind, f"{group}."))
    yield from found.items()


def numbers_of(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Those of a class, but for what is another's: a run's stages, a stage's method."""
    hints = get_type_hints(kind)
    for entry in fields(kind):  # type: ignore[arg-type]
        hint = hints[entry.name]
        if entry.name in ("stages", "method"):
            continue
        if is_dataclass(hint):
            yield from numbers_of(hint, f"{prefix}{entry.name}.")  # type: ignore[arg-type]
        elif set(kinds(hint)) & {int, float}:
            yield prefix + entry.name, hint


def kinds(hint: Any) -> list[Any]:
    return [k for part in get_args(hint) for k in kinds(part)] if get_args(hint) else [hint]


def nested(name: str, value: Any) -> dict[str, Any]:
    """The setting with what it needs beside it, as nested values."""
    *groups, last = name.split(".")
    values: dict[str, Any] = {**CONTEXT.get(name, {}), last: value}
    path = ".".join(groups)
    for group in reversed(groups):
        values = {group: values}
    if path in IMAGES:
        values["initial"] |= IMAGES[path]
    owner = next((row.name for row in METHODS.values() if row.knows(name)), None)
    return values | ({"method": owner} if owner else {})


def odd_numbers(name: str, hint: Any) -> list[float]:
    """What a setting of this name and type never takes."""
    odd = [*NEVER] if name in ENDLESS else [*NEVER, math.inf]
    odd += [*COUNTS] if int in kinds(hint) else [] if name == "initial.mean" else [-1]
    return odd if float in kinds(hint) or name.endswith("seed") else [*odd, 2**31]


def given(hint: Any, number: float) -> list[Any]:
    """The number as the setting takes it: in a list of each length that it may have, or bare."""
    return [[number], [number, number]] if "tuple" in str(hint) else [number]


@pytest.mark.parametrize(("name", "hint"), list(numbers()), ids=lambda v: v if isinstance(v, str) else "")
def test_no_setting_of_a_run_takes_what_nothing_later_takes(name, hint):
    """A seed of 2^64 trained for hours and failed at the first evaluation."""
    for number in odd_numbers(name, hint):
        for value in given(hint, number):
            with pytest.raises(ValueError) as caught:
                build_config(nested(name, value))
            text = str(caught.value)
            assert name.rpartition(".")[2] in text and "\n" not in text and "pydantic" not in text, text
            assert len(text) < 400 and text.endswith("."), text


def test_the_contexts_make_each_setting_count():
    """Without the odd number, each of them is accepted: what was refused above was the number."""
    good = {"betas": [0.5, 0.5], "milestones": [0.5], "gamma": 0.5, "scale": 0.5, "epochs": 2.0, "steps": 5}
    for name in CONTEXT:
        last = name.rpartition(".")[2]
        build_config(nested(name, good.get(last, 8)))


@pytest.mark.parametrize("seed", [0, 2**31, 2**32, 2**63 - 1])
def test_every_seed_below_2_63_is_taken_by_all_that_draws(seed):
    check_seed(seed)
    assert build_config({"seed": seed}).seed == seed
    torch.Generator().manual_seed(seed)
    for wrong in (-1, 2**63, 2**64, 10**30):
        with pytest.raises(ValueError, match=r"seed is .*from 0 to 2\^63 - 1\."):
            check_seed(wrong)
        with pytest.raises(ValueError, match=r"split_seed is"):
            build_config({"data": {"split_seed": wrong}})


@pytest.mark.parametrize("kind", [BenchSettings, PlanSettings, SamplingSettings])
def test_settings_of_other_commands_refuse_odd_numbers_too(kind):
    for name, hint in numbers_of(kind):
        for number in odd_numbers(name, hint):
            for value in [] if number is True else given(hint, number):
                with pytest.raises(ValueError) as caught:
                    kind(**{name: value})
                assert "\n" not in str(caught.value) and name in str(caught.value)


@pytest.mark.parametrize("given", [{"step_size": 0}, {"step_size": math.nan}, {"momentum": 1}, {"steps": -1}])
def test_a_sampler_made_in_python_is_refused_in_a_sentence(given):
    """It was four lines of pydantic with an address."""
    model = dualat.load("fashion-mnist")
    with pytest.raises(ValueError) as caught:
        dualat.sample(model, [1], **given)
    assert next(iter(given)) in str(caught.value)
    assert "\n" not in str(caught.value) and "pydantic" not in str(caught.value)


def test_mistakes_of_the_class_itself_name_what_is_near():
    with pytest.raises(ValueError, match=r"^stps is no setting\. Did you mean steps\?$"):
        SamplingSettings(stps=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match=r"^steps is 'many': input should be a valid integer"):
        SamplingSettings().steps = "many"  # type: ignore[assignment]


def test_settings_within_settings_are_their_own():
    """One object in two places would change in both."""
    method = StandardATSettings()
    stage = StageSettings(method=method, steps=5)
    config = RunConfig(stages={1: stage, 2: stage})
    config.stages[1].steps = 7
    config.stages[1].method.attack.eps = 0.1  # type: ignore[attr-defined]
    assert (config.stages[2].steps, stage.steps) == (5, 5)
    assert config.stages[2].method == method == StandardATSettings()
    config.stages = {1: stage}
    config.stages[1].optimizer.lr = 0.5
    assert stage.optimizer.lr == 0.1
    other = replace(config, seed=1)
    other.network.pretrained = False
    other.stages[1].method.attack.steps = 20  # type: ignore[attr-defined]
    assert config.stages[1].method == method
    description = ModelDescription(config.network, ["a", "b"], (1, 8, 8), True)
    description.network.checkpoint_activations = True
    assert not config.network.checkpoint_activations
    assert RunConfig().stages[1] is not RunConfig().stages[1]


def test_what_was_changed_later_is_checked_when_a_run_begins(tmp_path):
    config = load_recipe("digits", {"output": str(tmp_path / "run")})
    config.stages[1].batch_size = 1  # its own check looks at all fields together
    with pytest.raises(ValueError, match="batch_size must be 2 or more"):
        dualat.train(config)
    assert not (tmp_path / "run").exists()
