"""What `dualat evaluate` measures: the model or samples that its arguments mean, and their real images."""

from dataclasses import replace
from pathlib import Path

from dualat.cli.arguments import UsageError
from dualat.cli.evaluate import EvaluateArguments, run_of, say
from dualat.config import RunConfig
from dualat.data.images import ImageData
from dualat.data.in_distribution import Splits, load_splits
from dualat.data.initial import build_initial
from dualat.data.registry import SOURCES
from dualat.data.settings import AugmentSettings, DataSettings, InitialSettings
from dualat.evaluation.context import EvaluationContext
from dualat.evaluation.reuse import partial_folder
from dualat.evaluation.samples import read_samples
from dualat.evaluation.settings import EvaluationSettings
from dualat.models.model import LoadedModel, load
from dualat.run.data import located, renamed
from dualat.system.precision import choose_device


def build_context(
    target: Path, parsed: EvaluateArguments, config: RunConfig | None, settings: EvaluationSettings, seed: int
) -> EvaluationContext:
    """Model or samples, with the real images that they are measured on."""
    keep = partial_folder(target, parsed.weights)
    if config is None and target.suffix != ".safetensors":
        wanted = settings.samples if settings.samples != EvaluationSettings().samples else None
        if parsed.initial_images:
            raise UsageError("--initial-images is for models, and these are samples: leave it out.")
        samples = read_samples(target, wanted)
        data = load_splits(with_list(outside_data(parsed, samples.shape), parsed.test_list))
        return EvaluationContext(None, data, settings, seed, given=samples, keep=keep)
    path = target
    if target.is_dir():
        path = (
            target / "model.safetensors"
            if parsed.weights == "final"
            else target / "checkpoints" / f"{parsed.weights}.safetensors"
        )
        if not path.is_file():
            there = sorted(p.stem for p in (target / "checkpoints").glob("*.safetensors"))
            there = ["final"] * (target / "model.safetensors").is_file() + there
            hint = (
                f"--weights can be {', '.join(there)} here" if there else "training has left no weights yet"
            )
            raise FileNotFoundError(f"{path} does not exist: {hint}.")
    model = load(path, choose_device(parsed.device))
    if config:
        data = run_splits(target, parsed, config, model)
    else:
        wanted = model.description.data
        if wanted is None or parsed.source:
            wanted = outside_data(parsed, model.shape)
        elif parsed.root:
            wanted = replace(wanted, root=parsed.root)
        data = load_splits(with_list(wanted, parsed.test_list))
        check_data(target, model, data.train, wanted.source)
    if parsed.initial_images:
        start_from(model, parsed)
    return EvaluationContext(model, data, settings, seed, keep=keep)


def run_splits(target: Path, parsed: EvaluateArguments, config: RunConfig, model: LoadedModel) -> Splits:
    """The images of a run: where they were when it began, or where --source and --root say that the same are now."""
    folder, source = run_of(target), parsed.source or config.data.source
    assert folder is not None
    wanted, moved = located(folder, config).data, bool(parsed.source or parsed.root)
    if parsed.source and (parsed.source not in SOURCES) == config.data.is_folder:
        wanted = replace(wanted, source=parsed.source)
    elif parsed.source:
        wanted = outside_data(parsed, model.shape)
    wanted = replace(wanted, root=parsed.root) if parsed.root else wanted
    try:
        data = load_splits(with_list(wanted, parsed.test_list))
    except FileNotFoundError as error:
        option = "--source" if config.data.is_folder else "--root"
        hint = "" if moved else f"; if the images of {target} have moved, say by {option} where they are"
        raise FileNotFoundError(f"{str(error).rstrip('.')}{hint}.") from error
    known = model.description.train_sha256
    if moved and known and data.train.content != known:
        raise ValueError(
            f"{source} holds other training images than {target} was trained on: --source and --root name the place of the "
            "run's own images, and its weights are measured on others where they lie outside the run folder."
        )
    check_data(target, model, data.train, source)
    return renamed(data, config.data.source)


def check_data(target: Path, model: LoadedModel, train: ImageData, source: str) -> None:
    """ValueError where the data's images or classes are not the model's; a line where it may have seen test images."""
    ours, theirs = list(model.class_names), list(train.class_names)
    if train.shape != model.shape or len(ours) != len(theirs):
        raise ValueError(
            f"{target} was trained on images of shape {model.shape} with {len(ours)} classes, and {source} has "
            f"{train.shape} with {len(theirs)}: give its own data by --source."
        )
    # imported weights do not say what their classes mean: they are taken in the data's order
    numbered = ours == [str(k) for k in range(len(ours))]
    if ours != theirs and not numbered:
        k = next(k for k, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
        raise ValueError(
            f"class {k} of {target} is {ours[k]}, but that of {source} is {theirs[k]}: give the model's own data by "
            "--source."
        )
    if not model.description.train_sha256:
        say(
            "what these weights were trained on is not known: make sure that it was none of the images measured on"
        )
    elif train.content != model.description.train_sha256:
        say(
            "warning: the training split is another than the one that this model was trained on: images that it has "
            "seen may be among those it is measured on"
        )


def with_list(data: DataSettings, wanted: str | None) -> DataSettings:
    """The data with another list of test images; `all`: with none."""
    if wanted is None:
        return data
    if not data.is_folder:
        raise UsageError(
            f"--test-list is for folders and shards, and {data.source} has its own test images: leave it out."
        )
    return replace(data, test_list=None if wanted == "all" else wanted)


def start_from(model: LoadedModel, parsed: EvaluateArguments) -> None:
    """Let the model's samples start from all pictures of a source, drawn and augmented as in training."""
    own = model.initial_settings
    augmented = own.augment if own.kind == "images" else AugmentSettings(kind="none")
    settings = InitialSettings(
        kind="images",
        source=parsed.initial_images,
        include=parsed.initial_include,
        exclude=parsed.initial_exclude,
        augment=augmented,
    )
    model.description.initial = settings
    model.initial = build_initial(settings, model.shape, None)


def outside_data(parsed: EvaluateArguments, shape: tuple[int, int, int]) -> DataSettings:
    """Where the real images of a target outside a run folder are."""
    source = parsed.source
    if not source:
        raise UsageError(
            "--source is missing: it is not known what images these weights or samples are measured on; give one of "
            f"{', '.join(SOURCES)}, or a folder with one subfolder per class."
        )
    if source in SOURCES:
        return DataSettings(source=source, root=parsed.root)
    if parsed.root:
        raise UsageError(f"--root is for named sources, and {source} is a folder: leave it out.")
    return DataSettings(source=source, image_size=shape[1], channels=shape[0])
