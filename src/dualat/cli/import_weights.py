"""`dualat import-weights FILE [--recipe NAME] --output model.safetensors`."""

import json
import sys
from dataclasses import asdict, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from dualat.cli.arguments import UsageError, parse
from dualat.cli.outputs import output_file
from dualat.config import load_recipe
from dualat.core.sampler_settings import SamplingSettings
from dualat.data.settings import DataSettings, InitialSettings
from dualat.models.import_weights.settings import ImportSettings
from dualat.strict import strict

if TYPE_CHECKING:
    from dualat.data.images import ImageData
    from dualat.models.import_weights.convert import Imported
    from dualat.models.model import ModelDescription


@strict
class ImportArguments:
    """Turn published weights of another system into a model of dualat. Nothing in the file is run."""

    file: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")] = ""
    """Weights: a file of torch (.pt, .pth, .ckpt ...), a pickle, or .safetensors; told by its content."""
    output: str = "model.safetensors"
    """Model to write; its description goes beside it, as .json."""
    overwrite: bool = False
    """Replace a model that is there."""
    recipe: str | None = None
    """Recipe of what these weights are: its network, data, initial distribution and sampling are the model's, each
    unless it is given here."""
    data: DataSettings = field(default_factory=DataSettings)
    """What it was trained on, for the names of its classes and for evaluation; neither these nor a recipe: classes are
    numbered."""
    initial: InitialSettings = field(default_factory=InitialSettings)
    """What its samples start from; neither these nor a recipe: left open."""
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    """How it is sampled."""
    json: bool = False
    """Print what was recognised as JSON."""


def main(args: list[str]) -> int:
    known, base = defaults(args)
    settings, parsed = parse(args, "dualat import-weights", known, base)
    output = check_arguments(parsed)
    has_data = base.recipe is not None or any(arg.startswith("--data.") for arg in args)
    has_start = base.recipe is not None or any(arg.startswith("--initial.") for arg in args)
    from dualat.data.initial import build_initial
    from dualat.models.model import LoadedModel, save_model

    imported = convert(
        parsed, settings, has_data
    )  # the weights first: data may be large, or not be there yet
    images = training_images(parsed) if has_data else None
    description = describe(parsed, imported, images)
    start = None
    if has_start:
        description.initial = parsed.initial
        start = build_initial(parsed.initial, imported.shape, images)
    model = LoadedModel(imported.network, description, start)
    save_model(model, output.with_name(output.name.removesuffix(".safetensors")))
    tell(parsed, imported, sum(p.numel() for p in model.parameters()), has_data)
    return 0


def defaults(args: list[str]) -> tuple[ImportSettings, ImportArguments]:
    """What is not given: the recipe's, where one is."""
    given = [
        args[i + 1] if arg == "--recipe" and i + 1 < len(args) else arg.partition("=")[2]
        for i, arg in enumerate(args)
        if arg == "--recipe" or arg.startswith("--recipe=")
    ]
    name = given[-1] if given else None
    if not name:
        return ImportSettings(), ImportArguments()
    try:
        recipe = load_recipe(name)
    except (ValueError, FileNotFoundError) as error:
        raise UsageError(str(error)) from error
    activation = recipe.network.activation
    # relu may stand for nothing said
    known = ImportSettings(
        network=recipe.network.name, activation=None if activation == "relu" else activation
    )
    return known, ImportArguments(
        recipe=name, data=recipe.data, initial=recipe.initial, sampling=recipe.sampling
    )


def check_arguments(parsed: ImportArguments) -> Path:
    """The file to write; UsageError for arguments that do not go together."""
    if not parsed.file:
        raise UsageError("FILE is missing. `dualat import-weights --help` lists all options.")
    output = output_file(parsed.output, (".safetensors",), inputs=[parsed.file])
    if output.exists() and not parsed.overwrite:
        raise UsageError(f"{output} is there already: give --overwrite to replace it, or another --output.")
    return output


def training_images(parsed: ImportArguments) -> "ImageData":
    """What the weights were trained on; images of a folder or of shards are not decoded until they are needed, and no
    list of test images is read."""
    from dualat.data.in_distribution import load_splits
    from dualat.data.on_disk import open_splits

    settings = replace(parsed.data, test_list=None)
    try:
        return open_splits(settings)[0] if settings.is_folder else load_splits(settings).train
    except (ValueError, FileNotFoundError) as error:
        text = str(error).rstrip(".")
        raise type(error)(
            f"the weights can be read, but not the data that they were trained on: {text}; without --recipe and "
            "--data... they are imported all the same, with numbered classes."
        ) from error


def convert(parsed: ImportArguments, settings: ImportSettings, has_data: bool) -> "Imported":
    """The network with its weights. What does not fit is listed on the error stream, one key a line."""
    from dualat.models.import_weights.convert import Mismatch, import_network
    from dualat.planning.data import data_facts

    if has_data and settings.image_size is None:
        known = parsed.data.image_size or data_facts(parsed.data, None, None).shape[1]
        settings = replace(settings, image_size=known)
    try:
        return import_network(parsed.file, settings)
    except Mismatch as error:
        for line in error.lines:
            print(f"  {line}", file=sys.stderr)
        raise


def describe(parsed: ImportArguments, imported: "Imported", images: "ImageData | None") -> "ModelDescription":
    """What the model is; ValueError where it cannot have been trained on the images."""
    from dualat.models.model import ModelDescription

    names = list(images.class_names) if images is not None else [str(k) for k in range(imported.classes)]
    if images is not None and (len(names), images.shape) != (imported.classes, imported.shape):
        raise ValueError(
            f"{parsed.data.source} has {len(names)} classes and images of shape {images.shape}, and the weights in "
            f"{parsed.file} are for {imported.classes} classes and {imported.shape}: give the data that they were "
            "trained on, or neither --recipe nor --data...."
        )
    return ModelDescription(
        network=imported.settings,
        class_names=names,
        shape=imported.shape,
        normalized=imported.normalized,
        sampling=parsed.sampling,
        data=parsed.data if images is not None else None,
    )


def tell(parsed: ImportArguments, imported: "Imported", parameters: int, has_data: bool) -> None:
    """What was recognised and written, for a person or as JSON."""
    facts: dict[str, Any] = {
        "output": parsed.output,
        "recognised": imported.origin,
        "network": asdict(imported.settings),
        "parameters": parameters,
        "classes": imported.classes,
        "shape": list(imported.shape),
        "part": imported.part,
        "other_parts": imported.other_parts,
        "notes": imported.notes,
    }
    if parsed.json:
        print(json.dumps(facts))
        return
    settings = imported.settings
    print(f"{parsed.file}: {imported.origin}")
    print(
        f"  {settings.name}, {parameters:,} parameters, {imported.classes} classes, images {imported.shape}, "
        f"input {'normalised' if imported.normalized else 'not normalised'}"
        + (f", activation {settings.activation}" if settings.name.startswith("wrn-") else "")
    )
    if imported.other_parts:
        others = ", ".join(repr(name) for name in imported.other_parts)
        print(f"  part {imported.part!r} of the file; --part takes another: {others}")
    for note in imported.notes:
        print(f"  {note}")
    if not has_data:
        print(
            "  classes are numbered, and `dualat evaluate` needs --source: --recipe or --data.source says what they are"
        )
    print(f"model: {parsed.output}")
