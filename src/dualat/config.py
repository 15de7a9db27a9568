"""The whole configuration of a run, and recipes: YAML files that fill it in.

Where a value comes from: an override, the recipe (recipes/*.yaml), the recipe that it extends, a stage's defaults (FIRST and
SECOND in methods/registry.py), or the default beside each field of a settings class (*/settings.py, below), in this order.
This file imports no PyTorch, so that `--help` and mistakes in a recipe answer at once.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, field, fields, is_dataclass
from typing import Any, Literal

import yaml

from dualat.core.sampler_settings import SamplingSettings
from dualat.data.settings import AugmentSettings, DataSettings, InitialSettings
from dualat.evaluation.settings import EvaluationSettings
from dualat.methods.registry import DEFAULT, METHODS, Row, known_groups, method_settings, row_of
from dualat.models.settings import NetworkSettings
from dualat.recipes.reading import recipe_values
from dualat.short_form import (
    STAGE,
    as_meant,
    drafted,
    leaves,
    merge,
    mistakes,
    most_stages,
    named_method,
    overridden,
    without,
)
from dualat.strict import either, names_of, nearest_among, strict
from dualat.training.settings import StabilitySettings, StageSettings, TrackingSettings
from dualat.types import Precision


def _stages() -> dict[int, StageSettings]:
    """The stages of a recipe that says nothing of them."""
    plan = enumerate(row_of(DEFAULT).plan, 1)
    return {number: StageSettings(method=name, **defaults) for number, (name, defaults) in plan}  # type: ignore[arg-type]


@strict
class RunConfig:
    """Everything that decides a run's outcome."""

    weights: str | None = None
    """Start from these weights: a run folder or a .safetensors file of dualat."""
    seed: int = 0
    """Seed of weights, data order, augmentation, initial distribution and samples."""
    output: str | None = None
    """Run folder; None: runs/RECIPE."""
    device: str = "auto"
    """auto (an accelerator if there is one), cpu, cuda, cuda:1 ..."""
    precision: Precision = "auto"
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
    stages: dict[int, StageSettings] = field(default_factory=_stages)
    """What is trained, by number, one after the other; in YAML and in overrides stage1, stage2 ..."""
    initial: InitialSettings = field(default_factory=InitialSettings)
    """Initial distribution that contrastive samples and samples start from."""
    robust_augment: AugmentSettings = field(default_factory=lambda: AugmentSettings(kind="strong"))
    """Augmentation of the batch for the classification loss."""
    energy_augment: AugmentSettings = field(default_factory=lambda: AugmentSettings(kind="basic"))
    """Augmentation of the batch for the energy loss."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    """Sampling of the trained model."""
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    """What is measured, and on how many images."""
    stability: StabilitySettings = field(default_factory=StabilitySettings)
    """When training counts as diverged, and what is done then."""
    tracking: TrackingSettings = field(default_factory=TrackingSettings)
    """What is written while training."""

    def __post_init__(self) -> None:
        if not self.stages or min(self.stages) < 1:
            raise ValueError(f"a run needs stages, numbered from 1, not {list(self.stages)}.")
        first = min(self.stages)
        method = self.stages[first].method.name
        if row_of(method).from_trained and not self.weights:
            raise ValueError(
                f"stage{first} is {method}, which starts from trained weights: give them, as in "
                "--weights runs/digits/checkpoints/stage1.safetensors."
            )
        start = self.sampling.start
        if start is not None and start not in self.initial.parts:
            parts = (
                f"its parts are {', '.join(self.initial.parts)}" if self.initial.parts else "it is no mixture"
            )
            raise ValueError(
                f"sampling.start is {start!r}, which is no part of the initial distribution ({parts}): leave it out, in YAML "
                "null, or name a part."
            )
        if self.evaluation.validation_eps not in self.evaluation.eps:
            raise ValueError(
                f"evaluation.validation_eps is {self.evaluation.validation_eps}, but must be one of "
                f"evaluation.eps, {self.evaluation.eps}: checkpoints are chosen at a reported radius; give both "
                "(--evaluation.eps and --evaluation.validation-eps)."
            )

    @property
    def method(self) -> str:
        """The method that the run is named after: that of its last stage."""
        return self.stages[max(self.stages)].method.name

    @property
    def rows(self) -> list[Row]:
        """What is known of the stages' methods, in their order."""
        return [row_of(self.stages[number].method.name) for number in sorted(self.stages)]

    @staticmethod
    def setting_name(path: tuple[Any, ...]) -> str:
        """The dotted name of what lies at a path of fields: stage2.steps for stages, 2, steps."""
        if path[:1] == ("stages",) and len(path) > 1:
            path = (f"stage{path[1]}", *path[2:])
        return ".".join(str(part) for part in path if not isinstance(part, int))


OWN = frozenset(entry.name for entry in fields(RunConfig)) - {"stages"}  # type: ignore[arg-type]
"""Names that concern the whole run."""


def load_recipe(name: str, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """A recipe as a checked configuration, with dotted overrides such as {"stage2.steps": 100}.

    Raises ValueError, also for an override that the method does not read; FileNotFoundError where its file is missing.
    """
    return changed(recipe_values(name), overrides or {})


def changed(values: Mapping[str, Any], overrides: Mapping[str, Any]) -> RunConfig:
    """A checked configuration of nested values with dotted overrides on top; the values stay as they are.

    An override names one stage's setting, as in stage2.optimizer.lr or stage2.method.contrastive.t_max, or, in short, a
    setting of every stage whose method has it, as in contrastive.t_max. Of the recipe's network what another has not is left
    out where its name is overridden.

    Raises ValueError, also for an override that no stage's method reads.
    """
    config = build_config(overridden(values, overrides))
    refuse_unused(config, overrides)
    return config


def build_config(values: Mapping[str, Any]) -> RunConfig:
    """Check a recipe's values, in short or complete (short_form.py), and fill in defaults.

    Raises ValueError: one sentence per mistake, with the nearest right name.
    """
    if wrong := [key for key in values if not isinstance(key, str)]:
        raise ValueError(f"a recipe maps names to values, but {wrong[0]!r} is no name.")
    unknown = list(dict.fromkeys(_unknown(values)))
    told = [f"{name} is no setting.{did_you_mean(name)}" for name in unknown]
    values = without(values, unknown)
    draft = drafted(values, OWN)
    told += mistakes(draft)
    stages = {number: _stage(given, told) for number, given in draft.stages.items()}
    rest = as_meant(draft.rest, RunConfig)
    defaults = {name: value for name, value in asdict(RunConfig()).items() if name in OWN}
    try:
        config = RunConfig(**merge(defaults, rest), stages=stages)  # type: ignore[arg-type]
    except ValueError as error:
        raise ValueError(" ".join(dict.fromkeys([*told, str(error)]))) from None
    if told:
        raise ValueError(" ".join(dict.fromkeys(told)))
    frozen = config.stages[max(config.stages)].freeze_batchnorm
    if (
        config.rows[-1].sampled_in_batches
        and not frozen
        and "batch_statistics" not in (rest.get("sampling") or {})
    ):
        config.sampling.batch_statistics = True
    if not config.rows[-1].classifies:
        config.sampling.energy = "marginal"  # it learns no labels: there is no E(x, y) to descend
    return config


def _unknown(values: Mapping[str, Any]) -> Iterator[str]:
    """Names that are no setting's; of a group that there is not, the group's."""
    stages = {int(stage[1]): values[name] for name in values if (stage := STAGE.fullmatch(name))}
    most = max([most_stages(), *(stages if any(map(named_method, stages.values())) else ())])
    for leaf, _ in leaves(values):
        parts = leaf.split(".")
        names = (".".join(parts[: i + 1]) for i in range(len(parts)))
        yield from [name for name in names if not is_setting(name, most)][:1]


def _stage(given: Mapping[str, Any], told: list[str]) -> dict[str, Any]:
    """A stage's values with its method built; mistakes are added to `told`."""
    row = row_of(given["method"]["name"])
    method = row.settings()  # type: ignore[call-arg]
    try:
        method = method_settings(as_meant(given["method"], row.settings))
    except ValueError as error:
        told.append(str(error))
    return {**given, "method": method}


_OF_A_RUN = frozenset(names_of(RunConfig))
_OF_A_STAGE = [name for name in names_of(StageSettings) if name.partition(".")[0] != "method"]


def is_setting(name: str, most: int) -> bool:
    """Whether there is a setting, or group of settings, of this dotted name, whichever the method, of `most` stages."""
    head, _, rest = name.partition(".")
    if stage := STAGE.fullmatch(head):
        if int(stage[1]) > most:
            return False
        known = rest in ("", "method", "method.name", *_OF_A_STAGE)
        of_method = rest.startswith("method.") and _of_methods(rest.removeprefix("method."))
        return known or of_method
    if head in OWN:
        return name in _OF_A_RUN
    return name in ("method", "stages") or _of_methods(name)


def _of_methods(name: str) -> bool:
    return any(row.knows(name) for row in METHODS.values())


def setting_names(groups: bool = True) -> Iterator[str]:
    """Every setting's dotted name, in short; with `groups`, those of groups of settings too."""
    names = ["method", "stages"]
    for name, kind in known_groups():
        if name not in OWN:
            names += [name] if groups or not is_dataclass(kind) else []
            names += _inner(kind, f"{name}.", groups)
    for stage in (f"stage{number}" for number in range(1, most_stages() + 1)):
        names += [stage] if groups else []
        names += [f"{stage}.{name}" for name in names_of(StageSettings, groups=groups) if name in _OF_A_STAGE]
    names += [name for name in names_of(RunConfig, groups=groups) if name != "stages"]
    yield from dict.fromkeys(names)


def _inner(kind: type, prefix: str, groups: bool) -> Iterator[str]:
    return names_of(kind, prefix, groups) if is_dataclass(kind) else iter(())


def nearest_settings(name: str) -> list[str]:
    """Dotted names of settings that were probably meant."""
    own = re.match(r"stage\d+\.method\.", name)
    groups = [found for group, kind in known_groups() for found in (group, *_inner(kind, f"{group}.", True))]
    if own:
        return [own[0] + found for found in nearest_among(groups, groups, name.removeprefix(own[0]))]
    return nearest_among(list(setting_names(groups=False)), list(setting_names()), name)


def did_you_mean(name: str) -> str:
    """' Did you mean X?' of a setting's name, or nothing."""
    near = nearest_settings(name)
    return f" Did you mean {either(near)}?" if near else ""


def refuse_unused(config: RunConfig, names: Iterable[str]) -> None:
    """ValueError that names the first of these settings that would have no effect. A recipe may hold the settings of
    several methods; what is asked for beside it must matter."""
    for name in names:
        if not is_used(config, name):
            raise ValueError(
                f"{name} has no effect on method {config.method}, which {_reads(config, name)}: leave it out."
            )


def is_used(config: RunConfig, name: str) -> bool:
    """Whether a stage, or the run, reads the setting or group of this dotted name."""
    head, _, rest = name.partition(".")
    if stage := STAGE.fullmatch(head):
        if (number := int(stage[1])) not in config.stages:
            return False
        group = rest.removeprefix("method.")
        return group == rest or group == "name" or row_of(config.stages[number].method.name).knows(group)
    if name == "sampling.energy":
        return config.rows[-1].classifies
    if head in ("robust_augment", "energy_augment"):
        return any(row.classifies if head == "robust_augment" else row.energy_images for row in config.rows)
    return head in OWN or name in ("method", "stages") or any(row.knows(name) for row in config.rows)


def _reads(config: RunConfig, name: str) -> str:
    """What the methods of a run read in place of a setting: of its group, or, if there is none, all their groups."""
    head = name.partition(".")[0]
    if STAGE.fullmatch(head) and int(head.removeprefix("stage")) not in config.stages:
        return f"has {' and '.join(f'stage{number}' for number in sorted(config.stages))} alone"
    kinds = [kind for row in config.rows for group, kind in row.groups.items() if group == head]
    of_group = dict.fromkeys(found for kind in kinds for found in _inner(kind, f"{head}.", False))
    groups = dict.fromkeys(group for row in config.rows for group in row.groups)
    augment = [group for group in ("robust_augment", "energy_augment") if is_used(config, group)]
    return f"reads {', '.join(of_group or [*groups, *augment])}"


def plain(config: RunConfig) -> dict[str, Any]:
    """A configuration as nested mappings, complete, in the form that recipes have: stage1, stage2 ... at the top."""
    values: dict[str, Any] = {}
    for name, value in asdict(config).items():
        values |= (
            {f"stage{n}": stage for n, stage in sorted(value.items())} if name == "stages" else {name: value}
        )
    return values


def to_yaml(config: RunConfig) -> str:
    """A configuration, complete, as YAML."""
    return yaml.safe_dump(plain(config), sort_keys=False, allow_unicode=True)
