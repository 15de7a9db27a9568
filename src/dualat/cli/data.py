"""`dualat data prepare KIND ...`."""

import difflib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import tyro

from dualat.cli.arguments import UsageError, parse
from dualat.cli.outputs import output_file
from dualat.strict import strict

USAGE = """usage: dualat data prepare KIND ...

Makes large data sets ready and checks them; docs/data.md says which need what. Nothing is downloaded. Of shards, images
and checksums, a command that was stopped in the middle goes on when it is given again; the others start anew.

kinds:
{kinds}

`dualat data prepare KIND --help` shows every setting of a kind."""

OPEN_IMAGES = "# pictures of Open Images"
"""First line of such a list."""
TINY_IMAGES = 79_302_017
"""Pictures in the .bin file of 80 Million Tiny Images."""


@strict
class ShardsArguments:
    """Index webdataset shards, so that training does not wait for it; a shard that is indexed already is left alone."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Folder of .tar files (or with folders of them, as train/ and val/), or a pattern such as 'shards/*.tar'."""
    json: bool = False
    """Print the outcome as JSON."""


@strict
class ImagesArguments:
    """Decode every image of a folder or of shards once, and list those that cannot be read."""

    source: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Folder of images or of shards, or a pattern such as 'shards/*.tar'."""
    output: str = "unreadable.txt"
    """File for the list, which `--data.exclude` and `--initial.exclude` take."""
    workers: int | None = None
    """Threads; None: one per core, 16 at most."""
    json: bool = False
    """Print the outcome as JSON."""


@strict
class OpenImagesArguments:
    """List the pictures of Open Images whose labels overlap no class of ImageNet."""

    annotations: tuple[str, ...] = ()
    """Annotations of image labels or boxes (CSV with ImageID, LabelName, Confidence)."""
    descriptions: str = ""
    """Names of the labels (class-descriptions.csv)."""
    output: str = "open-images.txt"
    """File for the list of pictures, which `--initial.include` takes."""
    classes: str | None = None
    """Text file with one class per line, synonyms after commas; None: ImageNet's 1,000 classes."""
    count: int | None = None
    """Take so many pictures, by chance; None: all."""
    skip: int = 0
    """Leave out so many pictures of the same order first, as those that another list has."""
    seed: int = 0
    """Seed of that order."""
    labels_output: str | None = None
    """File for the labels that overlap, each with the class that it overlaps; None: none."""
    json: bool = False
    """Print the outcome as JSON."""


@strict
class ExclusionsArguments:
    """Make one list of pictures to leave out of a .bin, .npy or .npz file from lists that count from 0 or from 1."""

    one_based: tuple[str, ...] = ()
    """Lists that count from 1, as 80mn_cifar_idxs.txt."""
    zero_based: tuple[str, ...] = ()
    """Lists that count from 0, as the lists of RATIO's authors (80mn_cifar10_train_idxs.txt ...)."""
    output: str = "exclude.txt"
    """File for the list, which `--initial.exclude` takes."""
    count: int = TINY_IMAGES
    """Pictures in the file that is meant."""
    json: bool = False
    """Print the outcome as JSON."""


@strict
class ChecksumsArguments:
    """Compare files with a list of checksums, as md5sum, sha1sum, sha256sum or sha512sum write it."""

    sums: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="LIST")]
    """The list."""
    folder: str | None = None
    """Folder of the files; None: that of the list."""
    json: bool = False
    """Print the outcome as JSON."""


def main(args: list[str]) -> int:
    asks = bool({"-h", "--help"} & set(args))
    if not args or (asks and (len(args) < 3 or args[1] not in KINDS)):
        print(USAGE.format(kinds="\n".join(f"  {name:<12} {text}" for name, (text, _, _) in KINDS.items())))
        return 0
    if args[0] != "prepare":
        raise UsageError(f"`dualat data` has one command, prepare, and no {args[0]!r}: `dualat data --help`.")
    if len(args) < 2:
        raise UsageError(
            f"KIND is missing: give one of {', '.join(KINDS)}, as in `dualat data prepare shards`."
        )
    kind = args[1]
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no kind {kind!r}.{hint} There are {', '.join(KINDS)}.")
    _, settings, work = KINDS[kind]
    (parsed,) = parse(args[2:], f"dualat data prepare {kind}", settings)
    facts, line, code = work(parsed)
    print(json.dumps({"kind": kind, **facts}) if parsed.json else line)
    return code


Outcome = tuple[dict[str, Any], str, int]
"""Facts for --json, a line for a person, exit code."""


def shards(parsed: ShardsArguments) -> Outcome:
    from dualat.cli.evaluate import Lines
    from dualat.data.on_disk import all_shards
    from dualat.data.shards import NO_CLASS, read_index

    found, progress = all_shards(parsed.source), Lines()
    if not found:
        raise FileNotFoundError(
            f"{parsed.source} has no .tar file: give the folder or the pattern of the shards."
        )
    images, made, damaged, labels = 0, 0, [], set()
    for done, shard in enumerate(found):
        progress("shards", done, len(found))
        try:
            index, new = read_index(shard)
        except ValueError as error:
            damaged.append(str(error).rstrip("."))
            continue
        images, made = images + len(index), made + new
        labels |= set(index.labels.tolist())
    progress("shards", len(found), len(found))
    if damaged:
        more = f"; {len(damaged) - 1} others are damaged too" if damaged[1:] else ""
        raise ValueError(f"{damaged[0]}{more}.")
    classes = len(labels - {NO_CLASS})
    facts = {"shards": len(found), "indexed": made, "images": images, "classes": classes}
    return facts, f"{len(found)} shards ({made} indexed now): {images} images of {classes} classes", 0


def images(parsed: ImagesArguments) -> Outcome:
    from dualat.cli.evaluate import Lines
    from dualat.data.check import UNREADABLE, check_images
    from dualat.system.files import check_own

    if parsed.workers is not None and parsed.workers < 0:
        raise UsageError(f"--workers is {parsed.workers}, but must be 0 (no threads) or more.")
    output_file(parsed.output, inputs=[parsed.source])
    check_own(parsed.output, UNREADABLE, "dualat data prepare images")
    found = check_images(parsed.source, Path(parsed.output), parsed.workers, Lines())
    for problem in found.bad.values():
        print(f"dualat: warning: {problem}", file=sys.stderr)
    facts = {"images": found.count, "unreadable": list(found.bad), "output": parsed.output}
    return facts, f"{found.count} images, {len(found.bad)} cannot be read: {parsed.output}", 0


def open_images(parsed: OpenImagesArguments) -> Outcome:
    if not parsed.annotations or not parsed.descriptions:
        raise UsageError("--annotations and --descriptions are needed: name Open Images' CSV files.")
    if parsed.skip < 0:
        raise UsageError(f"--skip is {parsed.skip}, but must be 0 or more.")
    inputs = [*parsed.annotations, parsed.descriptions, *([parsed.classes] if parsed.classes else [])]
    output_file(parsed.output, inputs=inputs)
    if parsed.labels_output is not None:
        output_file(parsed.labels_output, inputs=[*inputs, parsed.output], option="--labels-output")
    from dualat.cli.evaluate import Lines
    from dualat.data import open_images as filters
    from dualat.system.files import check_own, write_text

    check_own(parsed.output, OPEN_IMAGES, "dualat data prepare open-images")
    names = filters.read_classes(Path(parsed.classes)) if parsed.classes else filters.imagenet_classes()
    overlap, descriptions = filters.Overlap(names), filters.read_descriptions(Path(parsed.descriptions))
    paths = [Path(path) for path in parsed.annotations]
    found = filters.filter_pictures(paths, descriptions, overlap, Lines())
    chosen = filters.pick(found.pictures, parsed.count, parsed.skip, parsed.seed)
    if parsed.labels_output:
        text = "".join(f"{label}\t{name}\n" for label, name in sorted(found.labels.items()))
        write_text(parsed.labels_output, text)
    write_text(parsed.output, f"{OPEN_IMAGES}\n" + "\n".join(chosen) + "\n")
    facts = {
        "pictures": len(chosen),
        "without_overlap": len(found.pictures),
        "with_overlap": found.overlapping,
        "overlapping_labels": len(found.labels),
        "output": parsed.output,
    }
    line = (
        f"{len(chosen)} of {len(found.pictures)} pictures without overlap ({found.overlapping} have one, by "
        f"{len(found.labels)} of {len(descriptions)} labels): {parsed.output}"
    )
    return facts, line, 0


def exclusions(parsed: ExclusionsArguments) -> Outcome:
    if not parsed.one_based and not parsed.zero_based:
        raise UsageError("there is no list: give --one-based or --zero-based.")
    output_file(parsed.output, inputs=[*parsed.one_based, *parsed.zero_based])
    from dualat.data.names import POSITIONS, read_positions, write_positions
    from dualat.system.files import check_own

    check_own(parsed.output, POSITIONS, "dualat data prepare exclusions")
    entries = [f"one-based:{path}" for path in parsed.one_based]
    entries += [f"zero-based:{path}" for path in parsed.zero_based]
    positions = read_positions(entries, parsed.count, f"the file of {parsed.count} pictures")
    write_positions(Path(parsed.output), positions)
    facts = {"lists": len(entries), "excluded": len(positions), "output": parsed.output}
    return facts, f"{len(positions)} pictures from {len(entries)} lists: {parsed.output}", 0


def checksums(parsed: ChecksumsArguments) -> Outcome:
    from dualat.cli.evaluate import Lines
    from dualat.data.checksums import read_sums, verify

    path = Path(parsed.sums)
    folder = Path(parsed.folder) if parsed.folder else path.parent
    found = verify(read_sums(path), folder, path.with_name(f".{path.name}.right.json"), Lines())
    facts = {"right": len(found.right), "wrong": found.wrong, "missing": found.missing}
    line = (
        f"{len(found.right)} files as the list says, {len(found.wrong)} others, {len(found.missing)} missing"
    )
    if found.wrong or found.missing:
        first = (found.wrong or found.missing)[0]
        state = "is not as the list says: fetch it again" if found.wrong else "is missing"
        print(f"dualat: {first} in {folder} {state}.", file=sys.stderr)
    return facts, line, 1 if found.wrong or found.missing else 0


KINDS: dict[str, tuple[str, type, Callable[[Any], Outcome]]] = {
    "shards": ("index webdataset shards", ShardsArguments, shards),
    "images": ("list the images that cannot be read", ImagesArguments, images),
    "open-images": ("list Open Images without ImageNet's classes", OpenImagesArguments, open_images),
    "exclusions": ("make one list of pictures to leave out", ExclusionsArguments, exclusions),
    "checksums": ("compare files with a list of checksums", ChecksumsArguments, checksums),
}
