"""`dualat counterfactual MODEL IMAGE --eps 2 --output strip.png`."""

import json
from pathlib import Path
from typing import Annotated, Literal

import tyro
from pydantic.dataclasses import dataclass

from dualat.cli.arguments import UsageError, parse
from dualat.settings import STRICT


@dataclass(config=STRICT)
class CounterfactualArguments:
    """Show what would have to change in an image for the model to see another class."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run folder or .safetensors file."""
    image: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")]
    """Any image file; it is resized and converted to what the model takes."""
    output: str = "counterfactual.png"
    """PNG strip: the original, then per target class the result and the signed difference (red brighter, blue
    darker)."""
    classes: tuple[str, ...] = ()
    """Target classes, by name or number; none: all but the one seen, at most 10."""
    norm: Literal["L2", "Linf"] = "L2"
    """Norm of the ball around the image."""
    eps: float = 2.0
    """Radius of the ball, in pixel units of [0, 1]: how much may change."""
    steps: int = 50
    """Gradient steps."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    json: bool = False
    """Print confidence and distance per class as JSON."""


def main(args: list[str]) -> int:
    parsed = parse(CounterfactualArguments, args, "dualat counterfactual")
    if not 0 < parsed.eps < float("inf") or parsed.steps < 1:
        raise UsageError(
            f"--eps must be above 0 and finite and --steps 1 or more, not {parsed.eps}, {parsed.steps}."
        )
    import torch

    from dualat.cli.sample import wanted_labels
    from dualat.counterfactual import counterfactual
    from dualat.data.folder import read_image
    from dualat.geometry import ThreatModel, image_norm
    from dualat.load import load
    from dualat.pictures import save_picture, signed_difference, strip
    from dualat.precision import choose_device

    model = load(parsed.model, choose_device(parsed.device))
    if not Path(parsed.image).is_file():
        raise FileNotFoundError(f"image {parsed.image} does not exist.")
    pixels = torch.from_numpy(read_image(Path(parsed.image), model.shape).copy())
    x = (pixels.float() / 255)[None].to(next(model.parameters()).device)
    with torch.no_grad():
        before = model.predict_proba(x)[0]
    seen = int(before.argmax())
    if parsed.classes:
        targets = wanted_labels(parsed.classes, model.class_names, len(parsed.classes))
    else:
        targets = [k for k in range(len(model.class_names)) if k != seen][:10]
    threat = ThreatModel(parsed.norm, parsed.eps)
    results = counterfactual(
        model, x.expand(len(targets), -1, -1, -1), torch.tensor(targets), threat, steps=parsed.steps
    )
    with torch.no_grad():
        after = model.predict_proba(results)
    distances = image_norm(results - x, parsed.norm)
    panels = [(x[0].cpu(), ["original", f"{model.class_names[seen]} {before[seen]:.2f}"])]
    rows = []
    for i, target in enumerate(targets):
        confidence, distance = float(after[i, target]), float(distances[i])
        name = model.class_names[target]
        panels.append((results[i].cpu(), [f"-> {name}", f"p {confidence:.2f}"]))
        panels.append(
            (signed_difference(x[0].cpu(), results[i].cpu()), ["difference", f"{parsed.norm} {distance:.2f}"])
        )
        rows.append(
            {
                "target": target,
                "class": name,
                "confidence": confidence,
                "distance": distance,
                "confidence_before": float(before[target]),
                "reached": int(after[i].argmax()) == target,
            }
        )
    save_picture(strip(panels, side=max(96, model.shape[1])), parsed.output)
    if parsed.json:
        print(
            json.dumps(
                {
                    "output": parsed.output,
                    "seen": seen,
                    "confidence": float(before[seen]),
                    "norm": parsed.norm,
                    "eps": parsed.eps,
                    "targets": rows,
                }
            )
        )
    else:
        print(f"{parsed.image}: seen as {model.class_names[seen]} ({before[seen]:.2f})")
        for row in rows:
            print(
                f"  {row['class']:<16} confidence {row['confidence_before']:.2f} -> {row['confidence']:.2f}   "
                f"{parsed.norm} distance {row['distance']:.2f}"
            )
        print(f"strip: {parsed.output}")
    return 0
