"""Every method: what it reads, and what must be known of it before PyTorch is imported. One row each.

To add one: its settings and its row here, its class in a file of its own. From a file outside the package, `register_method`.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass as plain_dataclass
from dataclasses import field, fields, is_dataclass, replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, get_type_hints

from dualat.methods.settings import (
    AttackSettings,
    BallSettings,
    ChainSettings,
    ClippedChainSettings,
    ContrastiveSettings,
    CurriculumSettings,
    DiffusionSettings,
    DualLossSettings,
    EnergyLossSettings,
    JointLossSettings,
    LongClippedChainSettings,
    LossSettings,
    MethodSettings,
    OutSettings,
    PositiveSettings,
    ProximalChainSettings,
    SharpnessSettings,
)
from dualat.strict import shown, strict
from dualat.system.plugins import LOAD

if TYPE_CHECKING:
    from dualat.methods.base import Method


@strict
class StandardATSettings(MethodSettings):
    """Standard adversarial training."""

    name: str = "standard-at"
    attack: AttackSettings = field(default_factory=AttackSettings)
    """Attack of adversarial training."""


@strict
class DATSettings(MethodSettings):
    """Dual adversarial training."""

    name: str = "dat"
    attack: AttackSettings = field(default_factory=AttackSettings)
    """Attack of adversarial training."""
    contrastive: ContrastiveSettings = field(default_factory=ContrastiveSettings)
    """Contrastive samples and curriculum."""
    loss: DualLossSettings = field(default_factory=DualLossSettings)
    """Weights of the loss's terms."""


@strict
class ChainMethodSettings(MethodSettings):
    """What JEM and its kin have."""

    chain: ChainSettings = field(default_factory=ChainSettings)
    """Chains from a replay buffer."""
    loss: LossSettings = field(default_factory=LossSettings)
    """Weights of the loss's terms."""


@strict
class JEMSettings(ChainMethodSettings):
    """JEM."""

    name: str = "jem"


@strict
class JEMPPSettings(ChainMethodSettings):
    """JEM++."""

    name: str = "jempp"
    chain: ProximalChainSettings = field(default_factory=ProximalChainSettings)  # pyright: ignore[reportIncompatibleVariableOverride]


@strict
class SADAJEMSettings(ChainMethodSettings):
    """SADA-JEM."""

    name: str = "sada-jem"
    chain: ClippedChainSettings = field(default_factory=ClippedChainSettings)  # pyright: ignore[reportIncompatibleVariableOverride]
    sharpness: SharpnessSettings = field(default_factory=SharpnessSettings)
    """Sharpness-aware minimisation."""


@strict
class RobustJEMSettings(ChainMethodSettings):
    """Robust JEM."""

    name: str = "robust-jem"
    attack: AttackSettings = field(default_factory=AttackSettings)
    """Attack of adversarial training."""


@strict
class ATEBMSettings(MethodSettings):
    """AT-EBM."""

    name: str = "at-ebm"
    contrastive: CurriculumSettings = field(default_factory=CurriculumSettings)
    """Contrastive samples and curriculum."""
    positive: PositiveSettings = field(default_factory=PositiveSettings)
    """Perturbed real images."""
    loss: EnergyLossSettings = field(default_factory=EnergyLossSettings)
    """Weights of the loss's terms."""


@strict
class RATIOSettings(MethodSettings):
    """RATIO."""

    name: str = "ratio"
    attack: AttackSettings = field(default_factory=AttackSettings)
    """Attack on real images."""
    out: OutSettings = field(default_factory=OutSettings)
    """Attack outside the distribution."""
    loss: LossSettings = field(default_factory=LossSettings)
    """Weights of the loss's terms."""


@strict
class EBJDATSettings(ChainMethodSettings):
    """EB-JDAT."""

    name: str = "eb-jdat"
    chain: LongClippedChainSettings = field(default_factory=LongClippedChainSettings)  # pyright: ignore[reportIncompatibleVariableOverride]
    loss: JointLossSettings = field(default_factory=JointLossSettings)  # pyright: ignore[reportIncompatibleVariableOverride]
    attack: BallSettings = field(default_factory=BallSettings)
    """Climb of the energy around real images, from a random start."""


@strict
class EGCSettings(MethodSettings):
    """EGC."""

    name: str = "egc"
    diffusion: DiffusionSettings = field(default_factory=DiffusionSettings)
    """Noise under which images are learned."""
    loss: LossSettings = field(default_factory=LossSettings)
    """Weights of the loss's terms."""


FIRST: Mapping[str, Any] = {"epochs": 300, "optimizer": {"schedule": "cosine"}}
"""Defaults of a stage that starts from fresh weights."""
SECOND: Mapping[str, Any] = {"epochs": 100, "freeze_batchnorm": True, "optimizer": {"lr": 1e-3}}
"""Defaults of a stage that goes on from a trained classifier."""


@plain_dataclass(frozen=True)
class Row:
    """What is known of a method without its code."""

    settings: type[MethodSettings]
    """All that it reads: groups of settings. Defaults are the published values."""
    home: "str | type[Method]"
    """Its class, as module:class, which is imported on first use."""
    classifies: bool = True
    """Whether it reads the batch for the classification loss (robust_augment), and so learns labels."""
    energy_images: bool = False
    """Whether it reads the images of the batch for the energy loss (energy_augment)."""
    starts: bool = False
    """Whether it reads images of the initial distribution. Then a batch for the energy loss is drawn too."""
    batch_statistics: bool = True
    """False: published without normalisation by the batch, so BatchNorm in train mode is probably not meant."""
    sampled_in_batches: bool = False
    """Whether its authors draw samples with BatchNorm's statistics of the images drawn together (sampling.batch_statistics)."""
    from_trained: bool = False
    """Whether it starts from trained weights: of the stage before, or given ones."""
    stages: tuple[tuple[str, Mapping[str, Any]], ...] = ()
    """What `method: NAME` stands for: method and defaults of each stage. Empty: the method alone, in one stage."""

    @property
    def name(self) -> str:
        """The method's name in a configuration."""
        return str(next(entry.default for entry in fields(self.settings) if entry.name == "name"))

    @property
    def plan(self) -> tuple[tuple[str, Mapping[str, Any]], ...]:
        """Method and defaults of each stage of `method: NAME`."""
        return self.stages or ((self.name, FIRST),)

    @property
    def groups(self) -> dict[str, type]:
        """Its groups of settings and their classes, by name; no group: a single setting with its type."""
        hints = get_type_hints(self.settings)
        return {entry.name: hints[entry.name] for entry in fields(self.settings) if entry.name != "name"}

    def knows(self, name: str) -> bool:
        """Whether it has the setting or group of this dotted name, as in contrastive or contrastive.t_max."""
        kind: Any = self.settings
        for part in name.split("."):
            hints = get_type_hints(kind) if is_dataclass(kind) else {}
            if part not in hints or part == "name":
                return False
            kind = hints[part]
        return True

    def make(self, settings: MethodSettings, batch_size: int) -> "Method":
        """The method with its settings, for batches of this size."""
        home: Any = self.home
        if isinstance(home, str):
            module, _, kind = home.partition(":")
            home = getattr(import_module(module), kind)
        return home(settings, batch_size)


DAT_STAGES = (("standard-at", FIRST), ("dat", SECOND))
CHAINS: dict[str, Any] = {"energy_images": True, "starts": True}
METHODS: dict[str, Row] = {
    row.name: row
    for row in (
        Row(
            DATSettings,
            "dualat.methods.dat:DAT",
            energy_images=True,
            starts=True,
            from_trained=True,
            stages=DAT_STAGES,
        ),
        Row(StandardATSettings, "dualat.methods.standard_at:StandardAT"),
        Row(JEMSettings, "dualat.methods.jem:JEM", **CHAINS, batch_statistics=False),
        Row(JEMPPSettings, "dualat.methods.jempp:JEMPP", **CHAINS, sampled_in_batches=True),
        Row(SADAJEMSettings, "dualat.methods.sada_jem:SADAJEM", **CHAINS, sampled_in_batches=True),
        Row(RobustJEMSettings, "dualat.methods.robust_jem:RobustJEM", **CHAINS, batch_statistics=False),
        Row(
            ATEBMSettings,
            "dualat.methods.at_ebm:ATEBM",
            **CHAINS,
            classifies=False,
            batch_statistics=False,
        ),
        Row(RATIOSettings, "dualat.methods.ratio:RATIO", starts=True),
        Row(EBJDATSettings, "dualat.methods.eb_jdat:EBJDAT", **CHAINS, sampled_in_batches=True),
        Row(EGCSettings, "dualat.methods.egc:EGC", batch_statistics=False),
    )
}
"""By name. `register_method` adds to it."""
DEFAULT = "dat"
"""The method of a recipe that names none."""


def row_of(name: Any) -> Row:
    """A method's row. ValueError where there is none: the nearest name, and all that there are."""
    if isinstance(name, str) and name in METHODS:
        return METHODS[name]
    near = difflib.get_close_matches(str(name), METHODS, n=1)
    hint = f" Did you mean {near[0]}?" if near else ""
    raise ValueError(
        f"method is {shown(name)}, which is unknown.{hint} There are {', '.join(METHODS)}; {LOAD}."
    )


def build_method(settings: MethodSettings, batch_size: int) -> "Method":
    """The method that these settings are of, for batches of this size."""
    return row_of(settings.name).make(settings, batch_size)


def method_settings(value: Any) -> Any:
    """Settings of a method from a configuration's values: its name, or a mapping with `name` and what differs from the
    published settings. The name decides which class of settings checks the others. What is built already is copied."""
    if isinstance(value, MethodSettings):
        return replace(value)
    values = {"name": value} if isinstance(value, str) else value
    if not isinstance(values, Mapping) or "name" not in values:
        raise ValueError(
            f"method is {shown(value)}: give a method's name, or a mapping with its name and settings."
        )
    return row_of(values["name"]).settings(**values)


def known_groups() -> Iterator[tuple[str, type]]:
    """(name, class) of the groups of settings of all methods; one name may come with several classes."""
    seen = set()
    for row in METHODS.values():
        for pair in row.groups.items():
            if pair not in seen:
                seen.add(pair)
                yield pair


def register_method(
    name: str, settings: type[MethodSettings] = MethodSettings, **facts: Any
) -> Callable[[type["Method"]], type["Method"]]:
    """A decorator that makes a method of one's own known by its name, in Python and in recipes.

        @dualat.register_method("mine", settings=MySettings, energy_images=True, starts=True)
        class Mine(Method): ...

    A name that was registered before gets the new class.

    Args:
        name: what recipes and `--method` call it.
        settings: a dataclass that extends MethodSettings: groups of settings, or single ones.
        facts: fields of `Row`, where they differ from its defaults.

    Raises:
        ValueError: a name of dualat's.
    """
    if name in METHODS and isinstance(METHODS[name].home, str):
        raise ValueError(f"method {name!r} is one of dualat's: give yours another name.")
    kind = _named(name, settings)

    def enter(method: type["Method"]) -> type["Method"]:
        METHODS[name] = Row(kind, method, **facts)
        return method

    return enter


def _named(name: str, settings: type[MethodSettings]) -> type[MethodSettings]:
    """The class of settings with the method's name as the default of `name`."""
    body = {"__annotations__": {"name": str}, "name": name, "__doc__": settings.__doc__}
    return strict(type(settings.__name__, (settings,), body | {"__module__": settings.__module__}))
