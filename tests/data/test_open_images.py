"""The label-overlap filter of Open Images: the rule on known names, the files' layout, the choice of pictures."""

from pathlib import Path

import pytest

from dualat.data.open_images import (
    Overlap,
    filter_pictures,
    imagenet_classes,
    pick,
    read_classes,
    read_descriptions,
    words,
)

LABELS = {"/m/1": "Dog", "/m/2": "Tree", "/m/3": "Sky", "/m/4": "Great white sharks", "/m/5": "Person"}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def test_words_of_a_name():
    assert words("Bird of prey") == ("prey", "bird")
    assert words("Jack-o'-lantern (lit)") == ("jack", "o", "lantern")
    assert words("Strawberries, Foxes") == ("strawberry", "fox")
    assert words("Glass bus") == ("glass", "bus") and words("Dogs") == ("dog",)


@pytest.mark.parametrize(
    ("label", "overlaps"),
    [
        ("Dog", True),  # "Eskimo dog", "African hunting dog" end in it
        ("Tower crane", True),  # ends in "crane"
        ("Hot dogs", True),
        ("Tree frog", True),
        ("Frog", True),
        ("Traffic light", True),
        ("Cup of coffee", True),  # a coffee cup
        ("Sports car", True),
        ("Great white shark", True),
        ("Tree", False),  # "tree frog" is no tree
        ("Sky", False),
        ("Person", False),
        ("Waterfall", False),
        ("White", False),
        ("Frog king statue", False),
    ],
)
def test_the_rule_on_imagenets_own_names(label, overlaps):
    assert (Overlap(imagenet_classes())(label) is not None) == overlaps


def test_words_written_together_overlap():
    overlap = Overlap(["hotdog, red hot"])
    assert overlap("Hot dog") == "hotdog, red hot" and overlap("Dog") is None


def test_pictures_without_overlap_are_kept(tmp_path):
    rows = {
        "a": [("/m/2", 1), ("/m/3", 0.7)],
        "b": [("/m/2", 1), ("/m/1", 1)],
        "c": [("/m/3", 1), ("/m/1", 0)],  # verified that there is no dog
        "d": [("/m/1", 0)],  # nothing known to be there
        "e": [("/m/5", 1)],
        "f": [("/m/5", 1), ("/m/unnamed", 1)],
        "g": [("/m/4", 0.6)],
    }
    text = "ImageID,Source,LabelName,Confidence\n" + "".join(
        f"{picture},verification,{label},{sure}\n" for picture, found in rows.items() for label, sure in found
    )
    labels = write(tmp_path, "labels.csv", text)
    boxes = write(tmp_path, "boxes.csv", "ImageID,LabelName,XMin\ne,/m/1,0.5\nh,/m/3,0.1\n")
    overlap = Overlap(["tree frog", "Eskimo dog, husky", "great white shark"])
    found = filter_pictures([labels], LABELS, overlap)
    assert found.pictures == ["a", "c", "e"] and found.overlapping == 3
    assert found.labels == {"Dog": "Eskimo dog, husky", "Great white sharks": "great white shark"}
    told = []
    both = filter_pictures([labels, boxes], LABELS, overlap, lambda *args: told.append(args))
    assert both.pictures == ["a", "c", "h"], "a box of a dog rules the picture out"
    assert told[-1] == ("boxes.csv", boxes.stat().st_size, boxes.stat().st_size)


def test_files_of_another_layout_are_refused(tmp_path):
    with_header = write(tmp_path, "c.csv", 'LabelName,DisplayName\n/m/1,"Dog, wild"\n/m/2,Tree\n')
    assert read_descriptions(with_header) == {"/m/1": "Dog, wild", "/m/2": "Tree"}
    assert read_descriptions(write(tmp_path, "d.csv", "/m/1,Dog\n")) == {"/m/1": "Dog"}
    for text in ("", "LabelName,DisplayName\n", "Dog\n", "1,Dog\n"):
        with pytest.raises(ValueError, match="no list of Open Images' labels"):
            read_descriptions(write(tmp_path, "d.csv", text))
    with pytest.raises(FileNotFoundError, match="docs/data.md"):
        read_descriptions(tmp_path / "none.csv")
    overlap = Overlap(["dog"])
    for text, message in [
        ("a,b\n1,2\n", "no columns ImageID and LabelName"),
        ("ImageID,LabelName,Confidence\na,/m/2\n", "damaged in row 2"),
        ("ImageID,LabelName,Confidence\na,/m/2,1\nb,/m/2,yes\n", "damaged in row 3"),
        ("ImageID,LabelName\na,/m/1\n", "no picture is without overlap"),
        ("ImageID,LabelName\na," + "x" * 200_000 + "\n", "is damaged"),
    ]:
        with pytest.raises(ValueError, match=message):
            filter_pictures([write(tmp_path, "x.csv", text)], LABELS, overlap)
    lines = "# classes\nn01440764 tench, Tinca tinca\nn01443537: goldfish\nplain name\n"
    assert read_classes(write(tmp_path, "k.txt", lines)) == ["tench, Tinca tinca", "goldfish", "plain name"]


def test_pick_is_by_chance_by_name_and_lists_can_be_disjoint():
    names = [f"{i:03d}" for i in range(200)]
    first, second = pick(names, 50, 0, 0), pick(names, 60, 50, 0)
    assert first == sorted(first) == pick(names[::-1], 50, 0, 0) and not set(first) & set(second)
    assert first != pick(names, 50, 0, 1) and pick(names, None, 0, 0) == names
    assert len(pick(names, None, 150, 0)) == 50
    with pytest.raises(ValueError, match="100 pictures after the first 150 are wanted, but there are 200"):
        pick(names, 100, 150, 0)
