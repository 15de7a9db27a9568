"""The whole configuration of a run, and recipes: YAML files that fill it in.

This file imports no PyTorch, so that `--help` and mistakes in a recipe answer at once.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, field, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml

from dualat.core.sampler_settings import SamplingSettings
from dualat.data.settings import AugmentSettings, DataSettings, InitialSettings
from dualat.evaluation.settings import EvaluationSettings
from dualat.methods.settings import (
    AttackSettings,
    ChainSettings,
    ContrastiveSettings,
    DiffusionSettings,
    LossSettings,
    OutSettings,
    PositiveSettings,
    SharpnessSettings,
    refuse_unused,
)
from dualat.models.settings import NetworkSettings
from dualat.settings import did_you_mean, names_of, nearest_names, strict
from dualat.system.files import read_yaml
from dualat.training.settings import OptimizerSettings, StabilitySettings, StageSettings, TrackingSettings


def _stage1() -> StageSettings:
    return StageSettings(epochs=300, optimizer=OptimizerSettings(schedule="cosine"))


def _stage2() -> StageSettings:
    return StageSettings(epochs=100, freeze_batchnorm=True, optimizer=OptimizerSettings(lr=1e-3))


@strict
class RunConfig:
    """Everything that decides a run's outcome."""

    method: Literal[
        "dat",
        "standard-at",
        "jem",
        "jempp",
        "sada-jem",
        "robust-jem",
        "at-ebm",
        "ratio",
        "eb-jdat",
        "egc",
    ] = "dat"
    """System to train. dat has two stages; all others have one, trained by the settings of stage1."""
    stages: Literal["both", "1", "2"] = "both"
    """dat: both stages, stage 1 alone, or stage 2 from `weights`."""
    weights: str | None = None
    """Start from these weights: a run folder or a .safetensors file of dualat."""
    seed: int = 0
    """Seed of weights, data order, augmentation, initial distribution and samples."""
    output: str | None = None
    """Run folder; None: runs/RECIPE."""
    device: str = "auto"
    """auto (an accelerator if there is one), cpu, cuda, cuda:1 ..."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Precision of training; auto: bf16 where the hardware is fast at it. Evaluation runs in fp32."""
    compile: Literal["auto", "on", "off"] = "auto"
    """Compile the gradient loop's step while training, which takes up to a minute per stage; auto: on an accelerator,
    and on a CPU where the run is long enough for that to pay. Without a compiler the loop runs uncompiled."""
    deterministic: bool = False
    """On GPUs, use kernels alone that give the same bits every time on the same hardware: slower, and a resumed run is then
    bit for bit one that never stopped, as on CPUs. Without, they agree up to rounding."""
    data: DataSettings = field(default_factory=DataSettings)
    """Real images."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    """Classifier."""
    attack: AttackSettings = field(default_factory=AttackSettings)
    """Attack of adversarial training."""
    contrastive: ContrastiveSettings = field(default_factory=ContrastiveSettings)
    """Contrastive samples and curriculum of stage 2."""
    chain: ChainSettings = field(default_factory=ChainSettings)
    """Chains of jem, robust-jem, jempp, sada-jem and eb-jdat."""
    sharpness: SharpnessSettings = field(default_factory=SharpnessSettings)
    """Sharpness-aware minimisation of sada-jem."""
    out: OutSettings = field(default_factory=OutSettings)
    """Attack outside the distribution of ratio."""
    positive: PositiveSettings = field(default_factory=PositiveSettings)
    """Perturbed real images of at-ebm."""
    diffusion: DiffusionSettings = field(default_factory=DiffusionSettings)
    """Noise under which egc learns images."""
    initial: InitialSettings = field(default_factory=InitialSettings)
    """Initial distribution that contrastive samples and samples start from."""
    loss: LossSettings = field(default_factory=LossSettings)
    """Weights of the loss's terms."""
    robust_augment: AugmentSettings = field(default_factory=lambda: AugmentSettings(kind="strong"))
    """Augmentation of the batch for the robust classification loss."""
    energy_augment: AugmentSettings = field(default_factory=lambda: AugmentSettings(kind="basic"))
    """Augmentation of the batch for the energy loss."""
    stage1: StageSettings = field(default_factory=_stage1)
    """dat: adversarial training. Any other method: all of its training."""
    stage2: StageSettings = field(default_factory=_stage2)
    """dat: dual adversarial training."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    """Sampling of the trained model."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """What is measured, and on how many images."""
    stability: StabilitySettings = field(default_factory=StabilitySettings)
    """When training counts as diverged, and what is done then."""
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    """What is written while training."""

    def __post_init__(self) -> None:
        if self.method != "dat" and self.stages == "2":
            raise ValueError(
                f"stages is 2, but {self.method} has one stage only: set stages to 1, or method to dat."
            )
        if self.method == "dat" and self.stages == "2" and not self.weights:
            raise ValueError(
                "stages is 2, which starts from trained weights: give them, as in "
                "--weights runs/digits/checkpoints/stage1.safetensors."
            )
        if self.evaluation.validation_eps not in self.evaluation.eps:
            raise ValueError(
                f"evaluation.validation_eps is {self.evaluation.validation_eps}, but must be one of "
                f"evaluation.eps, {self.evaluation.eps}: checkpoints are chosen at a reported radius; give both "
                "(--evaluation.eps and --evaluation.validation-eps)."
            )


LARGEST_RECIPE = 2**22  # bytes


def recipe_names() -> list[str]:
    """Names of the recipes that come with dualat."""
    folder = resources.files("dualat").joinpath("recipes")
    return sorted(p.name.removesuffix(".yaml") for p in folder.iterdir() if p.name.endswith(".yaml"))


def recipe_text(name: str) -> str:
    """The YAML of a recipe: one that comes with dualat, or a file's path. ValueError/FileNotFoundError otherwise."""
    if name in recipe_names():
        return resources.files("dualat").joinpath("recipes", f"{name}.yaml").read_text(encoding="utf-8")
    path = Path(name)
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise FileNotFoundError(f"recipe file {path} does not exist.")
        if path.stat().st_size > LARGEST_RECIPE:
            raise ValueError(f"recipe file {path} has {path.stat().st_size:,} bytes, which no recipe has.")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ValueError(f"recipe file {path} is not a text file.") from error
    near = difflib.get_close_matches(name, recipe_names(), n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"recipe {name!r} is unknown.{hint} There are {', '.join(recipe_names())}; "
        "your own is a path that ends in .yaml."
    )


def load_recipe(name: str, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """A recipe as a checked configuration, with dotted overrides such as {"stage2.steps": 100}.

    Raises ValueError, also for an override that the method does not read.
    """
    try:
        values = read_yaml(recipe_text(name))
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {name} is no valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict | None):
        raise ValueError(f"recipe {name} must be a mapping of settings, but is a {type(values).__name__}.")
    return changed(values or {}, overrides or {})


def changed(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> RunConfig:
    """A checked configuration of nested values with dotted overrides on top; the values stay as they are.

    Raises ValueError, also for an override that the method does not read.
    """
    for key, value in overrides.items():
        values = _with(values, str(key), value, str(key))
    config = build_config(values)
    refuse_unused(config.method, overrides, config.stages)
    return config


def _with(values: Mapping[str, Any], name: str, value: Any, whole: str) -> dict[str, Any]:
    """A copy of nested values with one setting changed: what shares an object with others, as YAML's references do, is left."""
    group, _, rest = name.partition(".")
    if not rest:
        return {**values, name: value}
    inner = {} if values.get(group) is None else values[group]
    if not isinstance(inner, Mapping):
        hint = did_you_mean(RunConfig, whole)
        raise ValueError(f"{whole} is no setting: {group} is a value, not a group.{hint}")
    return {**values, group: _with(inner, rest, value, whole)}


def build_config(values: Mapping[str, Any]) -> RunConfig:
    """Check values and fill in defaults. ValueError: one sentence per mistake, with the nearest right name."""
    if wrong := [key for key in values if not isinstance(key, str)]:
        raise ValueError(f"a recipe maps names to values, but {wrong[0]!r} is no name.")
    return RunConfig(**merge(asdict(RunConfig()), as_meant(values)))


def as_meant(values: Mapping[str, Any], kind: type = RunConfig, prefix: str = "") -> dict[str, Any]:
    """Values as whoever wrote them in YAML meant them: `off` and `1` where words are wanted; an empty group changes nothing.

    Raises ValueError for a boolean where a number is wanted (YAML reads yes as true), and for the word None.
    """
    hints, meant = get_type_hints(kind), dict(values)
    for key, value in values.items():
        hint = hints.get(key)
        if isinstance(hint, type) and is_dataclass(hint):
            inner = {} if value is None else value
            meant[key] = as_meant(inner, hint, f"{prefix}{key}.") if isinstance(inner, Mapping) else inner
        elif hint is not None:
            meant[key] = _leaf(f"{prefix}{key}", value, hint)
    return meant


def _leaf(name: str, value: Any, hint: Any) -> Any:
    if get_origin(hint) is Literal:
        word = {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
        return word if isinstance(value, bool | int) and word in get_args(hint) else value
    kinds = _kinds(hint)
    given = value if isinstance(value, list | tuple) else [value]
    if bool not in kinds and kinds & {int, float} and any(isinstance(v, bool) for v in given):
        raise ValueError(
            f"{name} is {value!r}, but is a number: YAML reads yes, no, on and off as true and false."
        )
    word = value.lower() if isinstance(value, str) and str not in kinds else value
    if type(None) in kinds and word in ("None", "none"):
        raise ValueError(f"{name} is the word {value}: what YAML writes for None is null.")
    return value


def _kinds(hint: Any) -> set[Any]:
    """The plain types in a type hint."""
    inner = get_args(hint)
    return set().union(*map(_kinds, inner)) if inner else {hint}


def resolved(config: RunConfig) -> RunConfig:
    """What the method decides filled in: published values of its chains; at-ebm learns no labels, so its samples descend E(x)."""
    energy = "marginal" if config.method == "at-ebm" else config.sampling.energy
    return replace(
        config,
        chain=config.chain.published(config.method),
        sampling=replace(config.sampling, energy=energy),
    )


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes` on top, group by group: a recipe states only what differs from the defaults."""
    merged = dict(base)
    for key, value in changes.items():
        inner = merged.get(key)
        merged[key] = (
            merge(inner, value) if isinstance(inner, Mapping) and isinstance(value, Mapping) else value
        )
    return merged


def setting_names(groups: bool = True) -> Iterator[str]:
    """Every setting's dotted name; with `groups`, those of groups of settings too."""
    return names_of(RunConfig, groups=groups)


def nearest_settings(name: str) -> list[str]:
    """Dotted names of settings that were probably meant."""
    return nearest_names(RunConfig, name)


def to_yaml(config: Any) -> str:
    """A configuration, complete, as YAML."""
    return yaml.safe_dump(_plain(asdict(config)), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
