"""dualat: classifiers that are also energy-based generative models, by dual adversarial training (DAT).

Names are loaded on first use, so that `import dualat` and `dualat --help` do not wait for PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dualat.core.energy import JointEnergyModel
    from dualat.core.geometry import ThreatModel
    from dualat.core.loop import pgd
    from dualat.counterfactuals import counterfactual
    from dualat.data.registry import register_source
    from dualat.evaluation.registry import register_metric
    from dualat.methods.registry import register_method
    from dualat.models.model import load
    from dualat.models.own import save
    from dualat.models.registry import register_network
    from dualat.results.catalogue import MetricValue
    from dualat.results.record import Record
    from dualat.run.evaluation import evaluate
    from dualat.run.train import train
    from dualat.sampling import sample

__version__ = "0.1.0"
__all__ = [
    "JointEnergyModel",
    "MetricValue",
    "Record",
    "ThreatModel",
    "__version__",
    "counterfactual",
    "evaluate",
    "load",
    "pgd",
    "register_method",
    "register_metric",
    "register_network",
    "register_source",
    "sample",
    "save",
    "train",
]

_HOME = {
    "JointEnergyModel": "core.energy",
    "MetricValue": "results.catalogue",
    "Record": "results.record",
    "ThreatModel": "core.geometry",
    "counterfactual": "counterfactuals",
    "evaluate": "run.evaluation",
    "load": "models.model",
    "pgd": "core.loop",
    "register_method": "methods.registry",
    "register_metric": "evaluation.registry",
    "register_network": "models.registry",
    "register_source": "data.registry",
    "sample": "sampling",
    "save": "models.own",
    "train": "run.train",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'dualat' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"dualat.{_HOME[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
