"""A run on somebody's own network and images: what its configuration says in place of the recipe's."""

import hashlib
from collections.abc import Iterable
from dataclasses import replace

from torch import nn

from dualat.config import RunConfig
from dualat.data.images import Splits
from dualat.data.own import OwnData, split_by
from dualat.data.settings import OWN as OWN_IMAGES
from dualat.data.settings import DataSettings
from dualat.models.registry import OWN
from dualat.models.settings import NetworkSettings

_SHARES = ("data.validation_fraction", "data.test_fraction", "data.split_seed")
"""Settings of the data by which somebody's own are split too."""


def with_own(
    config: RunConfig, overrides: Iterable[str], model: nn.Module | None, data: OwnData | None
) -> tuple[RunConfig, Splits | None]:
    """The configuration that says which parts are somebody's own, and their images in splits.

    Of images it has their hash, so that a run is not resumed on others.

    Raises:
        ValueError: an override of what is given here, or data that cannot be used.
    """
    refuse_both(overrides, model is not None, data is not None)
    if model is not None:
        config = replace(config, network=NetworkSettings(name=OWN, normalize="none"))
    if data is None:
        return config, None
    splits = split_by(config.data, data)
    parts = (splits.train, splits.validation, splits.test)
    digest = hashlib.sha256(" ".join(part.content for part in parts).encode()).hexdigest()
    own = DataSettings(
        source=f"{OWN_IMAGES}{digest[:12]}",
        validation_fraction=config.data.validation_fraction,
        test_fraction=config.data.test_fraction,
        split_seed=config.data.split_seed,
    )
    return replace(config, data=own), splits


def refuse_both(overrides: Iterable[str], model: bool, data: bool) -> None:
    """ValueError that names a setting which has no effect beside a network or images of one's own."""
    for name in overrides:
        group = name.split(".")[0]
        if model and group == "network":
            raise ValueError(
                f"{name} is a setting of the recipe's network, and model= takes its place: leave it out."
            )
        if data and group == "data" and name not in _SHARES:
            raise ValueError(
                f"{name} is a setting of the recipe's images, and data= takes their place: leave it out."
            )
