"""Recipes in short and complete, overrides of either, methods of one's own, and what older versions wrote."""

from dataclasses import field
from typing import Any, cast

import pytest
import yaml

from dualat.config import build_config, changed, load_recipe, plain, to_yaml
from dualat.methods.registry import (
    METHODS,
    DATSettings,
    JEMSettings,
    build_method,
    method_settings,
    register_method,
)
from dualat.methods.settings import AttackSettings, MethodSettings
from dualat.short_form import in_short, most_stages
from dualat.strict import strict

TWO = {
    "stage1": {"method": {"name": "standard-at", "attack": {"eps": 0.3}}, "steps": 5},
    "stage2": {"method": {"name": "dat", "contrastive": {"t_max": 3}}, "steps": 7, "freeze_batchnorm": True},
}


def dat_of(config: Any) -> DATSettings:
    return cast(DATSettings, config.stages[2].method)


def test_a_method_in_short_is_the_stages_of_its_row():
    config = build_config({"method": "dat", "attack": {"eps": 0.3}, "stage2": {"steps": 7, "epochs": None}})
    assert [(n, s.method.name) for n, s in config.stages.items()] == [(1, "standard-at"), (2, "dat")]
    assert dat_of(config).attack == AttackSettings(eps=0.3) == config.stages[1].method.attack  # type: ignore[attr-defined]
    assert (config.stages[1].epochs, config.stages[1].optimizer.schedule) == (300, "cosine")
    assert (config.stages[2].steps, config.stages[2].freeze_batchnorm) == (7, True)
    assert config.method == "dat" and build_config({}) == build_config({"method": "dat"})
    alone = build_config({"method": "jem", "stage1": {"steps": 7, "epochs": None}})
    assert list(alone.stages) == [1] and alone.stages[1].method == JEMSettings()


def test_the_complete_form_says_every_stage():
    config = build_config(TWO)
    assert config.stages[1].method.attack.eps == 0.3 and dat_of(config).contrastive.t_max == 3  # type: ignore[attr-defined]
    assert dat_of(config).attack.eps == 0.5 and config.stages[1].epochs is None
    three = build_config({**TWO, "stage3": {"method": "jem", "steps": 2}})
    assert [stage.method.name for stage in three.stages.values()] == ["standard-at", "dat", "jem"]
    assert build_config(yaml.safe_load(to_yaml(three))) == three
    assert changed(plain(three), {"stage3.steps": 4}).stages[3].steps == 4


def test_groups_beside_complete_stages_are_for_all_of_them_and_a_stage_s_own_count_more():
    config = build_config({**TWO, "attack": {"eps": 0.4, "steps": 20}})
    assert config.stages[1].method.attack == AttackSettings(eps=0.3, steps=20)  # type: ignore[attr-defined]
    assert dat_of(config).attack == AttackSettings(eps=0.4, steps=20)
    special = {"stage2": {"method": {"contrastive": {"t_max": 4}}}, "contrastive": {"t_max": 9, "window": 77}}
    short = dat_of(build_config(special)).contrastive
    assert (short.t_max, short.window) == (4, 77)


@pytest.mark.parametrize("values", [TWO, {"method": "dat"}], ids=["complete", "short"])
def test_overrides_in_short_reach_all_stages_that_have_them_and_long_ones_one(values):
    config = changed(values, {"attack.eps": 0.2, "contrastive.t_max": 8})
    assert [stage.method.attack.eps for stage in config.stages.values()] == [0.2, 0.2]  # type: ignore[attr-defined]
    assert dat_of(config).contrastive.t_max == 8
    config = changed(values, {"stage2.method.attack.eps": 0.25})
    assert dat_of(config).attack.eps == 0.25 and config.stages[1].method.attack.eps != 0.25  # type: ignore[attr-defined]


@pytest.mark.parametrize("values", [TWO, {"method": "dat"}], ids=["complete", "short"])
def test_another_method_takes_the_first_stage_s_length_and_its_groups(values):
    values = changed(values, {"stage1.steps": 11, "stage1.epochs": None, "attack.eps": 0.2})
    config = changed(plain(values), {"method": "robust-jem", "chain.buffer": 9})
    assert list(config.stages) == [1] and config.stages[1].steps == 11
    method: Any = config.stages[1].method
    assert (method.name, method.attack.eps, method.chain.buffer) == ("robust-jem", 0.2, 9)
    assert changed(plain(values), {"stages": "1"}).method == "standard-at"
    assert in_short({"method": "jem"}) == {"method": "jem"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {**TWO, "method": "jem"},
            "method is jem, but stage1 has a method of its own, standard-at: give one",
        ),
        ({**TWO, "stage3": {"steps": 1}}, "stage3 has no method: give it one"),
        ({**TWO, "stages": "3"}, "stages is '3': give both, 1 or 2"),
        ({"stage1": {"method": "jam", "steps": 1}}, "method is 'jam', which is unknown. Did you mean jem?"),
        ({"stage1": {"method": "dat", "steps": 1}}, "stage1 is dat, which starts from trained weights"),
        ({"stage1": {"method": {"name": "jem", "attack": {}}, "steps": 1}}, "attack is no setting"),
        (
            {"stage1": {"method": {"name": "jem", "chain": {"stps": 1}}, "steps": 1}},
            "Did you mean stage1.method.chain.steps?",
        ),
        ({"stage1": {"method": "jem", "stps": 1}}, "stage1.stps is no setting. Did you mean stage1.steps?"),
        ({"stage1": {"method": "jem", "steps": "x"}}, "stage1.steps is 'x'"),
        ({"stage1": {"method": 5, "steps": 1}}, "method is 5"),
        ({"stage0": {"steps": 1}}, "stage0 is no setting"),
        ({"stage3": {"steps": 1}}, "stage3 is no setting. Did you mean stage"),
        ({"method": "jem", "attack": {"steps": "x"}}, "attack.steps is 'x'"),
        ({"method": "jem", "stage2": {"steps": "x"}}, "stage2.steps is 'x'"),
        ({"method": "jem", "attack": {"epss": 1}}, "attack.epss is no setting. Did you mean attack.eps?"),
        ({"attack": 5}, "attack is 5, but is a group of settings"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_sentence(values, message):
    with pytest.raises(ValueError) as caught:
        build_config(values)
    text = str(caught.value)
    assert message in text and "\n" not in text and "pydantic" not in text and text.count(message) == 1


def test_what_older_versions_wrote_is_read():
    """None stood for the published value, and every run had the groups of all methods."""
    old = {
        "method": "sada-jem",
        "stages": "both",
        "chain": {"steps": None, "inner_steps": None, "noise": None, "buffer": 50},
        "loss": {"cross_entropy": 1.0, "robust": True, "energy": 1.0, "r1": None, "adversarial_energy": 0.1},
        "sharpness": {"rho": 0.5},
        "attack": {"eps": 0.5},
        "stage1": {"epochs": None, "steps": 9},
        "stage2": {"epochs": 100.0, "steps": None},
    }
    method: Any = build_config(old).stages[1].method
    assert (method.chain.steps, method.chain.noise, method.chain.buffer, method.sharpness.rho) == (
        5,
        0.0,
        50,
        0.5,
    )
    assert load_recipe("digits", {"method": "jem", "chain.steps": None}).stages[1].method == JEMSettings()


@strict
class MineSettings(MethodSettings):
    """A method of one's own."""

    gain: float = 1.0
    """Factor of the loss."""
    attack: AttackSettings = field(default_factory=AttackSettings)
    """Its attack."""


@pytest.fixture
def mine(monkeypatch):
    from dualat.methods.standard_at import StandardAT

    monkeypatch.setattr("dualat.methods.registry.METHODS", METHODS)
    known = dict(METHODS)

    @register_method("mine", settings=MineSettings)
    class Mine(StandardAT):
        pass

    yield Mine
    METHODS.clear()
    METHODS.update(known)


def test_a_method_of_one_s_own_is_told_from_others_by_its_name(mine):
    config = load_recipe("digits", {"method": "mine", "gain": 2.0, "attack.eps": 0.1})
    settings: Any = config.stages[1].method
    assert (settings.name, settings.gain, settings.attack.eps) == ("mine", 2.0, 0.1)
    assert config.stages[1].steps == 300 and isinstance(settings, MineSettings)
    made = build_method(settings, 4)
    assert type(made) is mine and made.name == "mine" and not made.needs_energy_batch
    assert build_config(yaml.safe_load(to_yaml(config))) == config
    with pytest.raises(ValueError, match=r"gain has no effect on method dat"):
        load_recipe("digits", {"gain": 2.0})
    with pytest.raises(ValueError, match="method 'jem' is one of dualat's"):
        register_method("jem")(mine)
    register_method("mine", settings=MineSettings)(mine)  # its file read again
    assert method_settings("mine").name == "mine" and most_stages() == 2
