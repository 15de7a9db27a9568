"""`dualat sample MODEL --classes 3 7 --count 20 --output samples.png`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dualat.cli.arguments import UsageError, parse
from dualat.cli.outputs import output_file, remove_samples, sample_folder, sample_name
from dualat.core.sampler_settings import SamplingSettings
from dualat.strict import strict
from dualat.types import Schedule

if TYPE_CHECKING:
    from torch import Tensor


@strict
class SampleArguments:
    """Draw images by descending the model's energy."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
    """Run folder, .safetensors file, or a model that comes with dualat: fashion-mnist."""
    output: str = "samples.png"
    """Where to: a .png file (one grid), a .npz file (arr_0: uint8 NHWC, arr_1: labels), or a folder (one PNG each, named
    NNNNN-classK.png). Labels are the classes asked for; there are none of --unconditional."""
    overwrite: bool = False
    """Replace the samples in a folder; nothing else in it is touched, and files are replaced without it."""
    classes: tuple[str, ...] = ()
    """Classes to draw, by name or number, in turn; none: all. Several give mixed labels."""
    unconditional: bool = False
    """Descend the marginal energy E(x): the model chooses what to draw."""
    count: int = 100
    """Number of images."""
    steps: int | None = None
    """Gradient steps; None: the model's own setting."""
    step_size: float | None = None
    """Mean L2 length of a step, in pixel units of [0, 1]; None: the model's own setting."""
    schedule: Schedule | None = None
    """How the length goes over the steps; None: the model's own setting."""
    momentum: float | None = None
    """Share of the direction of earlier steps that counts on, in [0, 1); None: the model's own setting."""
    initial: str | None = None
    """What samples start from: gaussian, class-gaussian, uniform, normal, smooth-noise; None: the model's own."""
    initial_images: str | None = None
    """Start from the images of this folder or data source instead."""
    seed: int = 0
    """Seed of the starting points."""
    device: str = "auto"
    """auto, cpu, cuda ..."""
    json: bool = False
    """Print what was written as JSON."""


def main(args: list[str]) -> int:
    (parsed,) = parse(args, "dualat sample", SampleArguments)
    output = check_arguments(parsed)
    import torch

    from dualat.data.settings import InitialSettings
    from dualat.models.model import load
    from dualat.sampling import sample
    from dualat.system.precision import choose_device

    model = load(parsed.model, choose_device(parsed.device))
    labels = wanted_labels(parsed.classes, model.class_names, parsed.count)
    pictures = parsed.initial_images
    images = sample(
        model,
        parsed.count if parsed.unconditional else torch.tensor(labels),
        **given_settings(parsed),
        initial=InitialSettings(kind="images", source=pictures) if pictures else parsed.initial,
        conditional=not parsed.unconditional,
        generator=torch.Generator().manual_seed(parsed.seed),
    )
    with torch.no_grad():
        seen = model(images).argmax(dim=1).cpu()
    columns = min(len(parsed.classes) or len(model.class_names), 20)
    of_classes = not parsed.unconditional and model.sampling.energy == "joint"
    asked = labels if of_classes else None
    write(output, images, asked, columns)
    share = float((seen == torch.tensor(labels)).float().mean()) if of_classes else None
    if parsed.json:
        told = {"output": parsed.output, "count": parsed.count, "seed": parsed.seed, "labels": asked}
        print(json.dumps(told | {"seen": seen.tolist(), "class_reached": share}))
    else:
        reached = "" if share is None else f"; the model sees the class asked for in {share:.1%}"
        print(f"{parsed.count} samples in {parsed.output}{reached}")
    return 0


def given_settings(parsed: SampleArguments) -> dict[str, Any]:
    """The sampler's settings that are not left to the model."""
    given = {name: getattr(parsed, name) for name in ("steps", "step_size", "schedule", "momentum")}
    return {name: value for name, value in given.items() if value is not None}


def check_arguments(parsed: SampleArguments) -> Path:
    """Where samples go; UsageError for what cannot work, before the model is read."""
    if not 1 <= parsed.count <= 10**7:
        raise UsageError(f"--count is {parsed.count}, but must be 1 to 10,000,000.")
    try:
        SamplingSettings(**given_settings(parsed))
    except ValueError as error:
        raise UsageError(str(error)) from error
    if parsed.unconditional and parsed.classes:
        raise UsageError("--unconditional and --classes contradict each other: give one of them.")
    if parsed.initial and parsed.initial_images:
        raise UsageError("--initial and --initial-images contradict each other: give one of them.")
    if parsed.output.strip() and not Path(parsed.output).suffix:
        return sample_folder(parsed.output, parsed.overwrite)
    return output_file(parsed.output, (".png", ".npz"))


def wanted_labels(classes: tuple[str, ...], names: list[str], count: int) -> list[int]:
    """Class numbers of `count` images: the classes asked for, in turn."""
    from dualat.data.class_names import class_number

    try:
        numbers = [class_number(text, names, "this model") for text in classes]
    except ValueError as error:
        raise UsageError(str(error)) from error
    numbers = numbers or list(range(len(names)))
    return [numbers[i % len(numbers)] for i in range(count)]


def write(path: Path, images: "Tensor", labels: list[int] | None, columns: int) -> None:
    """One PNG grid, one .npz, or a folder of PNGs, by the path's ending; labels: the classes asked for, where any were."""
    import numpy as np
    from PIL import Image

    from dualat.data.grids import grid, save_picture, to_uint8
    from dualat.system.files import atomic_path

    if path.suffix.lower() == ".png":
        save_picture(grid(images, columns), path)
    elif path.suffix.lower() == ".npz":
        arrays = {"arr_0": to_uint8(images)} | (
            {} if labels is None else {"arr_1": np.array(labels, dtype=np.int64)}
        )
        with atomic_path(path) as temporary, open(temporary, "wb") as handle:
            np.savez(handle, **arrays)  # pyright: ignore[reportArgumentType]
    else:
        path.mkdir(parents=True, exist_ok=True)
        remove_samples(path)
        for i, image in enumerate(to_uint8(images)):
            pixels = image.squeeze(-1) if image.shape[-1] == 1 else image
            name = sample_name(i, None if labels is None else labels[i])
            save_picture(Image.fromarray(pixels), path / name)
