"""dualat: classifiers that are also energy-based generative models, by dual adversarial training (DAT).

Names are loaded on first use, so that `import dualat` and `dualat --help` do not wait for PyTorch.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_PUBLIC = {
    "JointEnergyModel": "energy",
    "ThreatModel": "geometry",
    "pgd": "pgd",
    "sample": "sampling",
    "counterfactual": "counterfactual",
    "load": "load",
    "train": "train",
    "evaluate": "evaluate",
}
__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'dualat' has no attribute {name!r}")
    value = getattr(import_module(f"dualat.{_PUBLIC[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
