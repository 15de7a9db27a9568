"""How many times as fast the chains of the JEM family are compiled as eager.

    OMP_NUM_THREADS=1 python benchmarks/chains.py --output benchmarks/results/chains-cpu.json

One call is what `generate` does in a training step with the published chain: the replay buffer, the chain, and the attack
of methods that have one. BatchNorm is frozen, or the chains have the batch's statistics. Eager and compiled calls take
turns; a figure is the median over the rounds, a ratio the median of the rounds' own, with the least and the most.
"""

import argparse
import copy
import json
import os
from pathlib import Path
from typing import Any

import torch
from dualat.evaluation.throughput import device_name
from torch import Tensor

from dualat.bench.measure import interleaved, ratios
from dualat.core.energy import JointEnergyModel
from dualat.core.loop import GradientLoop
from dualat.methods.base import Batch
from dualat.methods.eb_jdat import EBJDAT
from dualat.methods.jem import JEM
from dualat.methods.jempp import JEMPP
from dualat.methods.robust_jem import RobustJEM
from dualat.methods.sada_jem import SADAJEM
from dualat.methods.settings import AttackSettings, ChainSettings, LossSettings, SharpnessSettings
from dualat.models.batchnorm import set_train_mode
from dualat.models.registry import build_network
from dualat.models.settings import NetworkSettings
from dualat.results.record import versions
from dualat.system.files import write_text
from dualat.system.precision import choose_device

CHAIN, WEIGHTS, ATTACK = ChainSettings(buffer=1000), LossSettings(), AttackSettings()
MAKERS = {
    "jem": lambda: JEM(CHAIN, WEIGHTS),
    "jempp": lambda: JEMPP(CHAIN, WEIGHTS),
    "sada-jem": lambda: SADAJEM(CHAIN, WEIGHTS, SharpnessSettings()),
    "robust-jem": lambda: RobustJEM(ATTACK, CHAIN, WEIGHTS),
    "eb-jdat": lambda: EBJDAT(ATTACK, CHAIN, WEIGHTS),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--network", default="wrn-16-1")
    parser.add_argument("--side", type=int, default=28, help="height and width of an image")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--methods", nargs="+", default=list(MAKERS), choices=list(MAKERS))
    parser.add_argument("--freeze-batchnorm", nargs="+", default=["on", "off"], choices=["on", "off"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--output", type=Path)
    given = parser.parse_args()
    measure(given)


def measure(given: argparse.Namespace) -> None:
    """Seconds of each chain, eager and compiled, how many times as fast, and how far apart their samples are; written
    after each, so that a run that is cut off keeps what it has."""
    device = choose_device(given.device)
    result: dict[str, Any] = {
        "settings": {k: v for k, v in vars(given).items() if k not in ("output", "device")},
        "hardware": {"device": device_name(device), "threads": torch.get_num_threads()},
        "load": round(os.getloadavg()[0], 2),  # of other jobs: 0 on an idle machine
        "versions": versions(),
        "chains": {},
    }
    for name in given.methods:
        for frozen in given.freeze_batchnorm:
            row = compare(name, frozen == "on", given, device)
            result["chains"][f"{name}, {'frozen' if frozen == 'on' else 'batch statistics'}"] = row
            print(f"{name:10} frozen {frozen:3} {row}", flush=True)
            if given.output:
                write_text(given.output, json.dumps(result, indent=1) + "\n")


def compare(name: str, frozen: bool, given: argparse.Namespace, device: torch.device) -> dict[str, Any]:
    """One method's chains."""
    torch.manual_seed(0)
    shape = (1, given.side, given.side)
    network = build_network(NetworkSettings(name=given.network), shape, 10)
    model = JointEnergyModel(network).to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    set_train_mode(model, frozen)
    images = [torch.rand(given.batch_size, *shape, device=device) for _ in range(3)]
    labels = torch.arange(given.batch_size, device=device) % 10
    batch = Batch(images[0], labels, images[1], labels, images[2])
    method, samples = MAKERS[name](), {}
    compiled = GradientLoop(model, compile=True, batch_size=given.batch_size)

    def call(way: str, loop: GradientLoop) -> Tensor:
        torch.manual_seed(0)
        samples[way] = copy.deepcopy(method).generate(loop, batch)["samples"]
        return samples[way]

    timings = interleaved(
        {
            "eager": lambda: call("eager", GradientLoop(model)),
            "compiled": lambda: call("compiled", compiled),
        },
        given.rounds,
        device,
    )
    times = ratios(timings["eager"], timings["compiled"])
    return {
        "seconds": {way: round(timing.median, 4) for way, timing in timings.items()},
        "compiled_is_faster_by": [round(value, 3) for value in times],
        "first_call_seconds": round(timings["compiled"].first, 1),
        "largest_difference": float((samples["eager"] - samples["compiled"]).abs().max()),
    }


if __name__ == "__main__":
    main()
