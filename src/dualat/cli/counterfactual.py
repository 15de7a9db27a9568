"""`dualat counterfactual MODEL IMAGE --eps 2 --output strip.png`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dualat.cli.arguments import UsageError, parse
from dualat.cli.outputs import output_file
from dualat.strict import strict
from dualat.types import Climb, Norm

if TYPE_CHECKING:
    from dualat.counterfactuals import Change

EPS = {"L2": 2.0, "Linf": 16 / 255}
"""Radius by norm, where none is given."""


@strict
class CounterfactualArguments:
    """Show what would have to change in an image for the model to see another class."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run folder, .safetensors file, or a model that comes with dualat: fashion-mnist."""
    image: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """Any image file; it is resized and converted to what the model takes."""
    output: str = "counterfactual.png"
    """PNG strip: the original, then per target class the result, above the signed difference (red brighter, blue
    darker)."""
    classes: tuple[str, ...] = ()
    """Target classes, by name or number; none: all but the one seen, at most 10."""
    norm: Norm = "L2"
    """Norm of the ball around the image."""
    eps: float | None = None
    """Radius of the ball, in pixel units of [0, 1]: how much may change. None: 2 for L2, 16/255 for Linf."""
    steps: int = 50
    """Gradient steps."""
    climb: Climb = "energy"
    """What rises: energy: f(x)[target], minus the joint energy, as published; probability: log p(target | x), which reaches
    the target more often."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    json: bool = False
    """Print confidence and distance per class as JSON."""


def main(args: list[str]) -> int:
    (parsed,) = parse(args, "dualat counterfactual", CounterfactualArguments)
    eps = EPS[parsed.norm] if parsed.eps is None else parsed.eps
    if not 0 < eps < float("inf") or parsed.steps < 1:
        raise UsageError(
            f"--eps must be above 0 and finite and --steps 1 or more, not {eps}, {parsed.steps}."
        )
    if parsed.norm == "Linf" and eps >= 1:
        raise UsageError(
            f"--eps {eps:g} in Linf lets every pixel take any value: give less than 1, say 0.06."
        )
    output = output_file(parsed.output, (".png",), inputs=[parsed.image])
    import torch

    from dualat.cli.sample import wanted_labels
    from dualat.core.classifier import device_of
    from dualat.core.geometry import ThreatModel
    from dualat.counterfactuals import change_strip, explain
    from dualat.data.folder import read_image
    from dualat.data.grids import save_picture
    from dualat.models.model import load
    from dualat.system.precision import choose_device

    model = load(parsed.model, choose_device(parsed.device))
    if not Path(parsed.image).is_file():
        raise FileNotFoundError(f"image {parsed.image} does not exist.")
    pixels = torch.from_numpy(read_image(Path(parsed.image), model.shape).copy())
    x = (pixels.float() / 255).to(device_of(model))
    with torch.no_grad():
        before = model.predict_proba(x[None])[0]
    seen, name = int(before.argmax()), model.class_names[int(before.argmax())]
    if parsed.classes:
        targets = wanted_labels(parsed.classes, model.class_names, len(parsed.classes))
    else:
        targets = [k for k in range(len(model.class_names)) if k != seen][:10]
    changes = explain(model, x, targets, ThreatModel(parsed.norm, eps), parsed.steps, parsed.climb)
    save_picture(change_strip(x, f"{name}, p = {before[seen]:.2f}", changes, parsed.norm), output)
    if parsed.json:
        print(json.dumps(as_json(parsed, eps, seen, float(before[seen]), changes)))
        return 0
    print(f"{parsed.image}: seen as {name} ({before[seen]:.2f})")
    for change in changes:
        print(
            f"  {change.name:<16} confidence {change.confidence_before:.2f} -> {change.confidence:.2f}   "
            f"{parsed.norm} distance {change.distance:.2f}{'' if change.reached else '   not reached'}"
        )
    reached = sum(change.reached for change in changes)
    other = "" if parsed.climb == "probability" else ", --climb probability asks for the class alone"
    hint = "" if reached == len(changes) else f"; a larger --eps lets more change{other}"
    print(
        f"the model sees the target class in {reached} of {len(changes)}, within {parsed.norm} {eps:.3g}{hint}"
    )
    print(f"strip: {parsed.output}")
    return 0


def as_json(
    parsed: CounterfactualArguments, eps: float, seen: int, confidence: float, changes: "list[Change]"
) -> dict[str, Any]:
    """What the command found, as plain values."""
    targets = [
        {
            "target": change.target,
            "class": change.name,
            "confidence": change.confidence,
            "distance": change.distance,
            "confidence_before": change.confidence_before,
            "reached": change.reached,
        }
        for change in changes
    ]
    return {
        "output": parsed.output,
        "seen": seen,
        "confidence": confidence,
        "norm": parsed.norm,
        "eps": eps,
        "climb": parsed.climb,
        "targets": targets,
    }
