"""The whole configuration of a run, and recipes: YAML files that fill it in.

This file imports no PyTorch, so that `--help` and mistakes in a recipe answer at once.
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, field, fields, is_dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any, Literal, get_type_hints

import yaml
from pydantic import ValidationError
from pydantic.dataclasses import dataclass

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
from dualat.settings import STRICT
from dualat.system.files import read_yaml
from dualat.training.settings import OptimizerSettings, StabilitySettings, StageSettings, TrackingSettings


def _stage1() -> StageSettings:
    return StageSettings(epochs=300, optimizer=OptimizerSettings(schedule="cosine"))


def _stage2() -> StageSettings:
    return StageSettings(epochs=100, freeze_batchnorm=True, optimizer=OptimizerSettings(lr=1e-3))


@dataclass(config=STRICT)
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
        values = read_yaml(recipe_text(name)) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"recipe {name} is no valid YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise ValueError(f"recipe {name} must be a mapping of settings, but is a {type(values).__name__}.")
    for key, value in (overrides or {}).items():
        *groups, last = key.split(".")
        target = values
        for group in groups:
            target = target.setdefault(group, {})
            if not isinstance(target, dict):
                raise ValueError(f"{key} is no setting: {group} is a value, not a group.{did_you_mean(key)}")
        target[last] = value
    config = build_config(values)
    refuse_unused(config.method, overrides or (), config.stages)
    return config


def build_config(values: Mapping[str, Any]) -> RunConfig:
    """Check values and fill in defaults. ValueError: one sentence per mistake, with the nearest right name."""
    if wrong := [key for key in values if not isinstance(key, str)]:
        raise ValueError(f"a recipe maps names to values, but {wrong[0]!r} is no name.")
    merged = merge(asdict(RunConfig()), values)
    try:
        return RunConfig(**merged)
    except ValidationError as error:
        raise ValueError(explain(error)) from None


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


def setting_names(kind: type = RunConfig, prefix: str = "", groups: bool = True) -> Iterator[str]:
    """Every setting's dotted name; with `groups`, those of groups of settings too."""
    hints = get_type_hints(kind)
    for entry in fields(kind):  # type: ignore[arg-type]
        name, inner = f"{prefix}{entry.name}", is_dataclass(hints[entry.name])
        if groups or not inner:
            yield name
        if inner:
            yield from setting_names(hints[entry.name], f"{name}.", groups)  # type: ignore[arg-type]


def nearest_settings(name: str) -> list[str]:
    """Dotted names of settings that were probably meant: all whose last part is the same, in the same group if there are any;
    else the nearest name, groups of settings among them; else that with the nearest last part; else none."""
    names = list(setting_names(groups=False))
    group, _, tail = name.rpartition(".")
    same = [n for n in names if n.rpartition(".")[2] == tail]
    near = [n for n in same if n.startswith(f"{group.split('.')[0]}.")] or same
    near = near or difflib.get_close_matches(name, list(setting_names()), n=1, cutoff=0.75)
    if not near:
        tails = {n.rpartition(".")[2]: n for n in names}
        near = [tails[t] for t in difflib.get_close_matches(tail, list(tails), n=1, cutoff=0.7)]
    return near


def did_you_mean(name: str) -> str:
    """' Did you mean X?' of a setting's name, or nothing."""
    near = nearest_settings(name)
    return f" Did you mean {either(near)}?" if near else ""


def either(names: list[str]) -> str:
    """'a', 'a or b', 'a, b or c'."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def explain(error: ValidationError) -> str:
    """Pydantic's errors as sentences, without addresses and types."""
    sentences = []
    for problem in error.errors(include_url=False):
        name = ".".join(str(part) for part in problem["loc"] if not isinstance(part, int))
        if problem["type"] == "unexpected_keyword_argument":
            sentences.append(f"{name} is no setting.{did_you_mean(name)}")
        elif problem["type"] == "value_error":
            text = str(problem.get("ctx", {}).get("error", problem["msg"]))
            group = f"{name}: " if name and name.split(".")[0] not in text else ""
            sentences.append(group + text)
        else:
            message = problem["msg"][0].lower() + problem["msg"][1:]
            sentences.append(f"{name} is {problem['input']!r}: {message}.")
    return " ".join(sentences)


def to_yaml(config: Any) -> str:
    """A configuration, complete, as YAML."""
    return yaml.safe_dump(_plain(asdict(config)), sort_keys=False, allow_unicode=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return [_plain(v) for v in value] if isinstance(value, (list, tuple)) else value
