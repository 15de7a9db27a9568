"""dualat: classifiers that are also energy-based generative models, by dual adversarial training (DAT).

Names are loaded on first use, so that `import dualat` and `dualat --help` do not wait for PyTorch.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualat.counterfactual import counterfactual
    from dualat.energy import JointEnergyModel
    from dualat.evaluate import evaluate
    from dualat.geometry import ThreatModel
    from dualat.load import load
    from dualat.pgd import pgd
    from dualat.sampling import sample
    from dualat.train import train

__version__ = "0.1.0"
__all__ = [
    "JointEnergyModel",
    "ThreatModel",
    "__version__",
    "counterfactual",
    "evaluate",
    "load",
    "pgd",
    "sample",
    "train",
]

_HOME = {
    "JointEnergyModel": "energy",
    "ThreatModel": "geometry",
    "counterfactual": "counterfactual",
    "evaluate": "evaluate",
    "load": "load",
    "pgd": "pgd",
    "sample": "sampling",
    "train": "train",
}


class _Package(ModuleType):
    """Some functions are named as the file that holds them. Importing that file would bind the module to the name
    `dualat.pgd`; here the function keeps it."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name not in _HOME:
            raise AttributeError(f"module 'dualat' has no attribute {name!r}")
        value = getattr(import_module(f"dualat.{_HOME[name]}"), name)
        setattr(self, name, value)
        return value

    def __dir__(self) -> list[str]:
        return sorted({*vars(self), *__all__})


sys.modules[__name__].__class__ = _Package
