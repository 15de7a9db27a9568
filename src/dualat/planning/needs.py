"""The files that a run needs, and whether they are there: paths are looked at, nothing is read."""

from dataclasses import dataclass
from pathlib import Path

from dualat.data.arrays import FILES
from dualat.data.names import BASES
from dualat.data.on_disk import find_shards
from dualat.data.registry import SOURCES
from dualat.data.settings import DataSettings, InitialSettings
from dualat.models.model import find_weights
from dualat.models.settings import NetworkSettings

WRITTEN = "put the text file there (`dualat data prepare` writes such lists)"
PUBLISHED = "get it from RobustBench's repository on GitHub (imagenet_test_image_ids.txt), or leave data.test_list out"


@dataclass(frozen=True)
class Need:
    """One thing that must be there before a run."""

    what: str
    where: str
    there: bool
    advice: str = ""
    """What to do where it is not there."""
    download: float = 0.0
    """Bytes that the run itself would fetch."""


def data_needs(settings: DataSettings) -> list[Need]:
    """The images to learn from, and the lists that choose among them."""
    lists = [_list("list of images to leave out", path) for path in settings.exclude]
    if settings.test_list is not None:
        lists.append(_list("list of test images", settings.test_list, PUBLISHED))
    return [source_need("training images", settings.source, settings.root, settings.download), *lists]


def initial_needs(settings: InitialSettings) -> list[Need]:
    """What contrastive samples start from, where it is images."""
    if "images" not in (settings.kind, *settings.parts):
        return []
    assert settings.source is not None
    path = Path(settings.source).expanduser()
    if path.suffix in FILES and not path.is_dir():
        advice = (
            "put the file there, or name another with --initial.source (docs/data.md says which there are)"
        )
        first = Need("initial distribution", str(path), path.is_file(), advice)
    else:
        first = source_need("initial distribution", settings.source, settings.root, False)
    lists = [
        _list("list for the initial distribution", entry) for entry in (*settings.include, *settings.exclude)
    ]
    return [first, *lists]


def weights_needs(weights: str | None, network: NetworkSettings) -> list[Need]:
    """Weights to start from: dualat's, or timm's."""
    needs = []
    if weights is not None:
        try:
            needs.append(Need("weights", str(find_weights(weights)), True))
        except (FileNotFoundError, ValueError):
            advice = (
                "give a run folder or a .safetensors file of dualat; published weights become one by "
                "`dualat import-weights`"
            )
            needs.append(Need("weights", weights, False, advice))
    if network.pretrained:
        needs.append(_timm_weights(network.name.removeprefix("timm/")))
    return needs


def source_need(what: str, source: str, root: str | None, download: bool) -> Need:
    """A named source, a folder of images, or shards."""
    if (row := SOURCES.get(source)) is not None:
        if not row.files:
            return Need(what, row.get, True)
        *_, last = row.places(root)
        if (found := row.place(root)) is None and download:
            return Need(what, str(last), False, "nothing: the run fetches it", row.download)
        return Need(what, str(found or last), found is not None, row.get)
    try:
        shards = find_shards(source)
    except FileNotFoundError as error:
        return Need(what, source, False, str(error))
    folder = Path(source).expanduser()
    there = bool(shards) or (folder.is_dir() and next(folder.iterdir(), None) is not None)
    advice = "put the images there, one subfolder per class, or webdataset shards (docs/data.md says how)"
    return Need(what, source, there, advice)


def _list(what: str, entry: str, advice: str = WRITTEN) -> Need:
    prefix, _, rest = entry.partition(":")
    path = Path(rest if prefix in BASES else entry).expanduser()
    return Need(what, str(path), path.is_file(), advice)


def _timm_weights(name: str) -> Need:
    """Whether the hub's cache has timm's published weights; the network is not asked."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    config = timm.get_pretrained_cfg(name) if timm.is_model_pretrained(name) else None
    hub = None if config is None else config.hf_hub_id
    if not hub:
        return Need(
            "timm's weights", name, False, "timm has none for this network: leave network.pretrained out"
        )
    files = ("model.safetensors", "pytorch_model.bin")
    there = any(isinstance(try_to_load_from_cache(hub, file), str) for file in files)
    return Need("timm's weights", hub, there, "nothing: the run fetches them from the hub")
