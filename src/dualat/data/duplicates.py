"""Identical pictures in two splits, which make figures on held-out images too good.

In memory and seen alike, pictures are compared pixel by pixel, whatever their files are. Otherwise files are compared byte by
byte: only those whose size another split has too are read, and none where that would be more than 1 GiB, as of ImageNet.
"""

import hashlib
import warnings
from collections import Counter
from collections.abc import Mapping

from dualat.data.decode import BadImage
from dualat.data.images import ImageData

MOST_READ = 2**30  # bytes
Prints = dict[bytes, list[int]]
"""Positions of the pictures in a split, by a hash of each."""


def tell_duplicates(listed: Mapping[str, ImageData], used: Mapping[str, ImageData], source: str) -> None:
    """A warning for each two splits that have pictures in common: how many, and the files of two.

    Args:
        listed: splits as lists of files, by name.
        used: the same splits as they are used, in memory or not.
        source: what a message calls them all.
    """
    in_memory = all(part.in_memory for part in used.values())
    alike = len({part.files.view for part in listed.values()}) == 1
    prints = _of_pixels(used) if in_memory and alike else _of_files(listed)
    for split, other in (("test", "train"), ("validation", "train"), ("test", "validation")):
        common = prints[split].keys() & prints[other].keys()
        if not common:
            continue
        found = sorted((prints[split][key][0], prints[other][key][0]) for key in common)
        count = sum(len(prints[split][key]) for key in common)
        one, two = (listed[name].told()[i] for name, i in zip((split, other), found[0], strict=True))
        many = f"1 picture of {split} is" if count == 1 else f"{count} pictures of {split} are"
        warnings.warn(
            f"{source}: {many} in {other} too, such as {one} and {other}'s {two}: remove one of each two, else figures on "
            "held-out pictures are too good.",
            stacklevel=3,
        )


def _of_pixels(splits: Mapping[str, ImageData]) -> dict[str, Prints]:
    found: dict[str, Prints] = {name: {} for name in splits}
    for name, part in splits.items():
        for i, image in enumerate(part.images.numpy()):
            digest = hashlib.blake2b(image.tobytes(), digest_size=16).digest()
            found[name].setdefault(digest, []).append(i)
    return found


def _of_files(splits: Mapping[str, ImageData]) -> dict[str, Prints]:
    found: dict[str, Prints] = {name: {} for name in splits}
    sizes = {name: [part.files.told(p)[1] for p in part.positions.tolist()] for name, part in splits.items()}
    having = Counter(size for own in sizes.values() for size in set(own))
    if sum(size for own in sizes.values() for size in own if having[size] > 1) > MOST_READ:
        return found
    for name, part in splits.items():
        for i, position in enumerate(part.positions.tolist()):
            if having[sizes[name][i]] > 1:
                try:
                    digest = hashlib.blake2b(part.files.raw(position), digest_size=16).digest()
                except BadImage:  # named when it is needed
                    continue
                found[name].setdefault(digest, []).append(i)
    return found
