"""Samples: the same bytes as one uninterrupted draw, and files that are read exactly or refused with a sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dualat.data.arrays import read_array
from dualat.data.images import ImageData
from dualat.data.initial import build_initial
from dualat.data.settings import InitialSettings
from dualat.evaluation import samples as module
from dualat.evaluation.reference import read_reference
from dualat.evaluation.samples import ImageSet, from_model, read_samples
from dualat.models.model import LoadedModel, ModelDescription, SamplingSettings
from dualat.models.settings import NetworkSettings
from dualat.sampling import draw

SHAPE = (1, 4, 4)
PLAIN = {
    "schedule": "constant",
    "momentum": 0.0,
    "energy": "joint",
    "rule": "L2",
    "noise": 0.0,
    "start_noise": 0.0,
    "clip": True,
}
COUNT = 1100  # three chunks


class Template(nn.Module):
    """f(x)[y] = -|x - y/2|^2."""

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        means = torch.tensor([0.0, 0.5, 1.0]).view(1, 3, 1, 1, 1)
        return -self.scale * (x[:, None] - means).square().flatten(2).sum(2)


def model(scale: float = 1.0, initial: bool = True) -> LoadedModel:
    description = ModelDescription(
        network=NetworkSettings(name="wrn-10-1"),
        class_names=["black", "grey", "white"],
        shape=SHAPE,
        normalized=False,
        initial=InitialSettings(kind="uniform"),
        sampling=SamplingSettings(steps=3, step_size=0.2),
    )
    start = build_initial(description.initial, SHAPE, None) if initial else None
    return LoadedModel(Template(scale), description, start)


def npz(path: Path, **arrays) -> Path:
    np.savez(path, **arrays)
    return path


def pixels(count: int = 6, channels: int = 3, side: int = 5) -> np.ndarray:
    return np.random.RandomState(0).randint(0, 256, (count, side, side, channels)).astype(np.uint8)


def png_folder(folder: Path, images: np.ndarray, names: list[str] | None = None) -> Path:
    for i, image in enumerate(images):
        path = folder / (names[i] if names else f"{i:04d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(path)
    return folder


def test_samples_are_those_of_the_sampler_balanced_and_rounded():
    found = from_model(model(), COUNT, seed=3)
    loaded, labels = model(), torch.arange(COUNT) % 3
    drawn = draw(
        loaded,
        loaded.initial,
        COUNT,
        labels,
        SamplingSettings(steps=3, step_size=0.2),
        generator=torch.Generator().manual_seed(3),
    )
    images = (drawn * 255).round() / 255
    assert found.images.dtype == torch.uint8
    torch.testing.assert_close(found.images.float() / 255, images, rtol=0, atol=0)
    assert torch.equal(found.labels, labels) and found.labels[:4].tolist() == [0, 1, 2, 0]
    assert found.settings["sampling"] == {"steps": 3, "step_size": 0.2, **PLAIN}
    assert found.settings["sampling_seed"] == 3 and found.settings["initial"] == "uniform"


def test_steps_and_step_size_in_place_of_the_models_own():
    found = from_model(model(), 8, 0, steps=0, step_size=0.1)
    starts = model().initial.sample(8, None, torch.Generator().manual_seed(0))
    assert torch.equal(found.images, (starts * 255).round().to(torch.uint8))
    assert found.settings["sampling"] == {"steps": 0, "step_size": 0.1, **PLAIN}


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the chunks that were drawn and not read."""
    sizes: list[int] = []
    own = module.descend

    def counted(loaded, starts, labels, *rest):
        sizes.append(len(starts))
        return own(loaded, starts, labels, *rest)

    monkeypatch.setattr(module, "descend", counted)
    return sizes


def killed(state: Path, after: int, seed: int = 0) -> None:
    def stop(done: int, count: int) -> None:
        assert count == COUNT
        if done >= after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        from_model(model(), COUNT, seed, state=state, progress=stop)


def test_a_killed_draw_goes_on_and_ends_with_the_same_bytes(tmp_path, drawn):
    whole = from_model(model(), COUNT, 0)
    killed(tmp_path, after=1000)
    drawn.clear()
    resumed = from_model(model(), COUNT, 0, state=tmp_path)
    assert drawn == [100]
    assert torch.equal(resumed.images, whole.images) and resumed.content == whole.content
    drawn.clear()
    assert from_model(model(), COUNT, 0, state=tmp_path).content == whole.content and not drawn


def test_a_damaged_chunk_is_drawn_anew(tmp_path, drawn):
    killed(tmp_path, after=1000)
    chunk = next(tmp_path.rglob("chunk-00000.safetensors"))
    chunk.write_bytes(chunk.read_bytes()[:100])
    drawn.clear()
    assert from_model(model(), COUNT, 0, state=tmp_path).content == from_model(model(), COUNT, 0).content
    assert drawn[:2] == [500, 100]


@pytest.mark.parametrize("change", ["seed", "weights", "steps", "count"])
def test_the_state_of_other_samples_is_not_used(tmp_path, drawn, change):
    killed(tmp_path, after=1000)
    drawn.clear()
    loaded = model(scale=2.0 if change == "weights" else 1.0)
    count, seed = COUNT - (change == "count"), int(change == "seed")
    from_model(loaded, count, seed, state=tmp_path, steps=2 if change == "steps" else None)
    assert drawn == [500, 500, count - 1000]
    assert len(list(tmp_path.iterdir())) == 2


def test_many_starting_points_are_drawn_chunk_by_chunk(monkeypatch, tmp_path, drawn):
    together = from_model(model(), COUNT, 0)
    monkeypatch.setattr(module, "AT_ONCE", 4 * COUNT * 16 - 1)  # one byte less than they take
    loaded, sizes = model(), []
    own = loaded.initial.sample
    loaded.initial.sample = lambda n, *rest: sizes.append(n) or own(n, *rest)
    apart = from_model(loaded, COUNT, 0)
    assert sizes == [500, 500, 100] and apart.settings == together.settings
    assert len({image.numpy().tobytes() for image in apart.images}) == COUNT  # no chunk starts like another
    assert apart.content == from_model(model(), COUNT, 0).content != together.content
    killed(tmp_path, after=1000)
    drawn.clear()
    assert from_model(model(), COUNT, 0, state=tmp_path).content == apart.content and drawn == [100]


def test_no_samples_and_no_start_are_refused():
    with pytest.raises(ValueError, match="number of samples is 0"):
        from_model(model(), 0, 0)
    with pytest.raises(ValueError, match="no initial distribution"):
        from_model(model(initial=False), 4, 0)


def test_npz_and_folder_give_the_same_images(tmp_path):
    array = pixels()
    one = read_samples(npz(tmp_path / "a.npz", arr_0=array, arr_1=np.arange(6)))
    two = read_samples(png_folder(tmp_path / "b", array), shape=(3, 5, 5))
    assert torch.equal(one.images, torch.from_numpy(array).permute(0, 3, 1, 2))
    assert one.content == two.content and one.labels.tolist() == list(range(6)) and two.labels is None
    assert (one.settings["origin"], two.settings["origin"]) == ("npz", "folder")


def test_content_tells_pixels_and_shapes_apart():
    images = torch.zeros(2, 1, 2, 2, dtype=torch.uint8)
    changed = images.clone()
    changed[1, 0, 1, 1] = 1
    sets = [ImageSet(x, None, "x") for x in (images, changed, images.view(1, 1, 2, 4))]
    assert len({s.content for s in sets}) == 3
    assert ImageSet(images.clone(), None, "y").content == sets[0].content


def labelled(folder: Path, names: list[str], classes: tuple[str, ...]) -> list[int] | None:
    """Labels, among these classes, of pictures with these names."""
    found = read_samples(png_folder(folder, pixels(len(names), channels=1), names)).of_classes(
        classes, "toys"
    )
    return None if found.labels is None else found.labels.tolist()


DIGITS = tuple(map(str, range(10)))


def test_class_folders_are_matched_by_name_not_by_position(tmp_path):
    """3/ and 8/ alone were taken for the classes 0 and 1."""
    assert labelled(tmp_path / "a", ["3/0.png", "8/1.png", "3/2.png"], DIGITS) == [3, 3, 8]
    words = ("T-shirt/top", "Trouser", "Bag", "Ankle boot")  # not sorted
    assert labelled(tmp_path / "b", ["Bag/0.png", "Ankle boot/0.png"], words) == [3, 2]
    # a number counts the classes, where no class is called by a number
    assert labelled(tmp_path / "c", ["1/0.png", "03/0.png"], words) == [3, 1]
    assert labelled(tmp_path / "d", ["10/0.png", "2/0.png"], ("10", "2", "7")) == [0, 1]


@pytest.mark.parametrize(
    ("name", "classes", "match"),
    [
        ("cat/0.png", DIGITS, "cat of .* is no class: toys has no class 'cat': it has 0, 1, 2"),
        ("11/0.png", DIGITS, "no class '11'"),
        ("1/0.png", ("10", "2", "7"), "no class '1'"),
        ("Bags/0.png", ("Bag", "Coat"), r"no class 'Bags' .did you mean 'Bag'"),
        ("4/0.png", ("Bag", "Coat"), "no class '4'.*or numbers 0 to 1"),
        ("bag/0.png", ("Bag", "Coat"), "no class 'bag'"),
        ("crane/0.png", ("crane", "dog", "crane"), "'crane' is the name of the classes 0, 2"),
    ],
)
def test_a_folder_that_is_no_class_is_refused(tmp_path, name, classes, match):
    folder = png_folder(tmp_path / "a", pixels(1), [name])
    with pytest.raises(ValueError, match=match) as caught:
        read_samples(folder).of_classes(classes, "toys")
    assert str(folder) in str(caught.value) and str(caught.value).endswith(".")


def test_labels_in_file_names(tmp_path):
    named = [f"{i:05d}-class{i % 3}.png" for i in range(6)]
    assert labelled(tmp_path / "a", named, DIGITS) == [0, 1, 2, 0, 1, 2]
    assert read_samples(tmp_path / "a").shape == (1, 5, 5)
    with pytest.raises(ValueError, match="label 2, but toys has only the classes 0 to 1"):
        read_samples(tmp_path / "a").of_classes(("x", "y"), "toys")
    assert labelled(tmp_path / "b", ["0-unconditional.png", "1-unconditional.png"], DIGITS) is None
    assert labelled(tmp_path / "c", ["3/0-class3.png", "8/1-class8.png"], DIGITS) == [3, 8]
    assert labelled(tmp_path / "d", ["part1/0-class3.png", "part2/1-class8.png"], DIGITS) == [3, 8]
    with pytest.raises(
        ValueError, match=r"3/0-class4.png lies in the folder of class 3, but its name says 4"
    ):
        labelled(tmp_path / "e", ["3/0-class4.png", "8/1-class8.png"], DIGITS)


def test_where_some_pictures_tell_no_class_none_is_labelled_and_that_is_said(tmp_path):
    for folder, names in (
        ("a", ["3/0.png", "8/1.png", "loose.png"]),
        ("b", ["0-class3.png", "1-class8.png", "loose.png"]),
    ):
        with pytest.warns(UserWarning, match=r"2 of 3 pictures tell their class, but not loose.png"):
            assert labelled(tmp_path / folder, names, DIGITS) is None


def test_numbers_in_arrays_must_be_classes(tmp_path):
    found = read_samples(npz(tmp_path / "a.npz", arr_0=pixels(), arr_1=np.array([0, 1, 2, 3, 4, 9])))
    assert found.of_classes(DIGITS, "toys").labels.tolist() == [0, 1, 2, 3, 4, 9]
    with pytest.raises(ValueError, match=r"a.npz has the label 9, but toys has only the classes 0 to 4"):
        found.of_classes(DIGITS[:5], "toys")
    below = read_samples(npz(tmp_path / "b.npz", arr_0=pixels(), arr_1=np.array([0, 1, 2, -1, 4, 9])))
    with pytest.raises(ValueError, match="the label -1"):
        below.of_classes(DIGITS, "toys")


def test_grey_pictures_with_a_palette_are_grey_and_go_with_colour(tmp_path):
    """Pillow opens grey .gif files as pictures with a palette."""
    grey = pixels(channels=1)
    for i, image in enumerate(grey):
        (tmp_path / "g").mkdir(exist_ok=True)
        Image.fromarray(image.squeeze(-1)).save(tmp_path / "g" / f"{i}.gif")
    assert torch.equal(read_samples(tmp_path / "g").images, torch.from_numpy(grey).permute(0, 3, 1, 2))
    folder = png_folder(tmp_path / "c", pixels())
    Image.fromarray(grey[0].squeeze(-1)).convert("P").save(folder / "9.png")
    assert read_samples(folder).shape == (3, 5, 5)


def test_fewer_than_all_are_picked_by_a_fixed_seed(tmp_path):
    path = npz(tmp_path / "a.npz", arr_0=pixels(100), arr_1=np.arange(100) // 10)
    some = read_samples(path, wanted=50)
    assert len(some) == 50 and len(some.labels.unique()) > 7  # not the first classes alone
    assert some.content == read_samples(path, wanted=50).content
    folder = png_folder(tmp_path / "b", pixels(100))
    assert read_samples(folder, wanted=50).content == some.content


def refuses(match: str, path: Path, **arguments) -> None:
    with pytest.raises(ValueError, match=match) as caught:
        read_samples(path, **arguments)
    text = str(caught.value)
    assert path.name in text and text.endswith(".") and "\n" not in text


def test_bad_arrays_are_refused(tmp_path):
    array = pixels()
    refuses("float32", npz(tmp_path / "a.npz", arr_0=array.astype(np.float32)))
    refuses(r"shape \(6, 5, 5\)", npz(tmp_path / "b.npz", arr_0=array[..., 0]))
    refuses("channels last", npz(tmp_path / "c.npz", arr_0=array.transpose(0, 3, 1, 2)))
    refuses("arr_0", npz(tmp_path / "d.npz", pictures=array))
    refuses("one integer per image", npz(tmp_path / "e.npz", arr_0=array, arr_1=np.arange(5)))
    refuses("3x32x32", npz(tmp_path / "f.npz", arr_0=array), shape=(3, 32, 32))
    refuses("has 6 images, but 7 are wanted", npz(tmp_path / "g.npz", arr_0=array), wanted=7)
    refuses("run code", npz(tmp_path / "h.npz", arr_0=np.array([object()], dtype=object)))


def test_zeros_and_ones_are_no_levels_of_8_bits(tmp_path):
    """Images in [0, 1] cast to uint8 are black but for their brightest pixels, and were scored without a hint."""
    bits = pixels() % 2
    refuses("only zeros and ones.*multiply by 255", npz(tmp_path / "a.npz", arr_0=bits))
    refuses("only zeros and ones", png_folder(tmp_path / "b", bits))
    with pytest.raises(ValueError, match="only zeros and ones"):
        read_reference(npz(tmp_path / "c.npz", arr_0=bits))
    with pytest.raises(ValueError, match="only zeros and ones"):
        read_array(npz(tmp_path / "d.npz", pictures=bits))
    with pytest.warns(UserWarning, match="e.npz are black"):
        assert len(read_samples(npz(tmp_path / "e.npz", arr_0=bits * 0))) == 6
    assert read_samples(npz(tmp_path / "f.npz", arr_0=bits * 255)).images.max() == 255
    assert (
        read_samples(
            npz(tmp_path / "g.npz", arr_0=bits + (np.arange(6) == 5)[:, None, None, None])
        ).images.max()
        == 2
    )


def test_damaged_files_are_refused(tmp_path):
    whole = npz(tmp_path / "a.npz", arr_0=pixels(50)).read_bytes()
    for name, content in (
        ("half", whole[: len(whole) // 2]),
        ("empty", b""),
        ("text", b"not an archive at all"),
    ):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(content)
        refuses("damaged|run code", path)
    flipped = bytearray(whole)
    flipped[len(flipped) // 2] ^= 255
    (tmp_path / "flipped.npz").write_bytes(flipped)
    refuses("damaged", tmp_path / "flipped.npz")
    single = tmp_path / "single.npz"
    with single.open("wb") as handle:
        np.save(handle, pixels())
    refuses("single array", single)


def test_bad_folders_are_refused(tmp_path):
    folder = png_folder(tmp_path / "a", pixels(3, side=40))
    refuses("has 3 images, but 4 are wanted", folder, wanted=4)
    with pytest.raises(ValueError, match="0000.png has shape 3x40x40.*3x32x32 is wanted"):
        read_samples(folder, shape=(3, 32, 32))
    Image.fromarray(pixels(1, side=39)[0]).save(folder / "other.png")
    with pytest.raises(ValueError, match="other.png has shape 3x39x39"):
        read_samples(folder)
    (folder / "other.png").unlink()
    broken = folder / "0001.png"
    broken.write_bytes(broken.read_bytes()[:500])
    with pytest.raises(ValueError, match="0001.png cannot be read as an image.*replace or remove it"):
        read_samples(folder)
    (tmp_path / "none").mkdir()
    refuses("no images", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        read_samples(tmp_path / "absent")
    (tmp_path / "one.txt").write_text("x")
    refuses("neither a folder", tmp_path / "one.txt")


def test_an_image_set_refuses_what_is_no_image():
    for images in (torch.zeros(2, 3, 4, 4), torch.zeros(3, 4, 4, dtype=torch.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            ImageSet(images, None, "x")
    with pytest.raises(ValueError, match="channels"):
        ImageSet(torch.zeros(2, 4, 4, 4, dtype=torch.uint8), None, "x")
    data = ImageData(torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), ("a", "b"), "d")
    assert ImageSet.of(data).name == "d"
    with pytest.raises(ValueError, match="one label per image"):
        ImageSet(data.images, torch.zeros(3, dtype=torch.int64), "x")
