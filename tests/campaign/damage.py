"""Ways to break an input: its bytes, its text, or a tree of plain values. Each returns what it made, and words for it."""

import copy
import json
import math
import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import yaml

SIZES = (0, 1, 127, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1)


def words_of(text: str) -> list[str]:
    """The words of a text, for lists of them that take less room."""
    return text.split()


def one_of(text: str, rng: random.Random) -> str:
    """One of a text's words."""
    return rng.choice(words_of(text))


ODD_NAMES = (
    *("", " ", ".", "..", "a\nb", "a\tb", "é", "\u202egnp", "\U0001f600", "a b", "x" * 200),
    *words_of("-1 --x con %s{0}$HOME [bold]x [red] <script> * ~x"),
)
ODD_WORDS = (
    *words_of(
        "nan .nan inf -inf .inf 1e999 -1 0 1.5 1e308 -0.0 1e-320 true yes off null None ~ 010 0x10 1_000 1:30"
    ),
    *words_of("2020-01-01 = << [ ] { } ' *b | > --- ... # @ ` !x"),
    *(
        "",
        " ",
        '"',
        "\\",
        "\r",
        "a\r\nb",
        "\udcff",
        "é",
        "\U0001f600",
        "\u2028",
        "\u202eabc",
        "\ufeff",
        "a\x00b",
        "a\x1bb",
    ),
    *("9" * 25, "9" * 400, "x" * 3000, "- - -", "&a [*a]", "%YAML 9", "!x y", "!!binary x", "!!set {a}"),
    "!!python/object/apply:os.system [x]",
)
ODD_PLAIN = (
    *(None, True, False, 0, 1, -1, 2, 1.5, -0.0, 1e308, 1e-320, 10**20, -(10**20), 2**31, 2**63, 2**64),
    *(math.nan, math.inf, -math.inf, "", "é\u202e\U0001f600", "a\nb", "\x00", "x" * 5000, "\udcff"),
    *words_of("x nan 1 ../../x nowhere/x on auto none [/b] [red]x"),
)
ODD_VALUES: tuple[Callable[[], Any], ...] = (
    *(lambda v=v: v for v in ODD_PLAIN),
    *(list, dict, lambda: [None], lambda: [[]], lambda: {"": {}}, lambda: [1, "a", None], lambda: {"a": 1}),
    *(lambda: [0] * 1000, lambda: [math.nan] * 3, lambda: nested(100), lambda: nested(3000), lambda: [1, 2]),
)
"""Made anew each time: what is broken further must not be shared."""


def nested(depth: int) -> list[Any]:
    """A list in a list in a list ..."""
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def broken_bytes(content: bytes, others: Sequence[bytes], rng: random.Random) -> tuple[bytes, str]:
    """One to six changes: bits, numbers, stretches cut out, doubled, exchanged, taken from another file; or all gone."""
    whole, words = bytearray(content), []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        size = len(whole)
        # headers decide more than what follows them
        place = rng.randrange(min(size, rng.choice((32, 200, size)))) if size else 0
        length = rng.choice((1, 2, 4, 30, max(1, size // 3)))
        what = one_of("bit bit byte number number cut out double swap splice zeros all", rng)
        if what == "bit" and size:
            whole[place] ^= 1 << rng.randrange(8)
        elif what == "byte" and size:
            whole[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, 0x0A, 0x22, rng.randrange(256)))
        elif what == "number" and size:
            value, width = rng.choice(SIZES), rng.choice((2, 4, 8))
            whole[place : place + width] = (value % 256**width).to_bytes(width, rng.choice(("little", "big")))
        elif what == "cut":
            del whole[place:]
        elif what == "out":
            del whole[place : place + length]
        elif what == "double":
            whole[place:place] = whole[place : place + length] * rng.choice((1, 1, 20))
        elif what == "swap" and size:
            other = rng.randrange(size)
            one, two = whole[place : place + length], whole[other : other + length]
            whole[place : place + length], whole[other : other + length] = two, one
        elif what == "splice" and others:
            from_other = rng.choice(others)
            start = rng.randrange(len(from_other) + 1)
            whole[place:] = from_other[start:]
        elif what == "zeros":
            whole[place:place] = bytes(rng.choice((1, 100, 5000)))
        elif what == "all" and rng.random() < 0.2:
            whole[:] = rng.choice(
                (b"", b"\n", b"\x00" * 100, rng.randbytes(200), b"<html>", bytes(whole) * 2)
            )
        words.append(f"{what} at {place}")
    return bytes(whole), ", ".join(words)


def broken_text(text: str, rng: random.Random) -> tuple[bytes, str]:
    """Lines and words of a text changed; sometimes in another encoding, or very deep or long."""
    words = []
    for _ in range(rng.choice((1, 1, 2, 4))):
        lines = text.split("\n")
        row = rng.randrange(len(lines))
        what = one_of("word word word insert lose double indent join whole", rng)
        odd = rng.choice(ODD_WORDS)
        if what == "word":
            parts = lines[row].split(" ")
            parts[rng.randrange(len(parts))] = odd
            lines[row] = " ".join(parts)
        elif what == "insert":
            place = rng.randrange(len(lines[row]) + 1)
            lines[row] = lines[row][:place] + odd + lines[row][place:]
        elif what == "lose":
            del lines[row]
        elif what == "double":
            lines[row:row] = [lines[row]] * rng.choice((1, 1, 100))
        elif what == "indent":
            lines[row] = rng.choice(("\t", " ", "   ", "- ", "? ", ": ")) + lines[row]
        elif what == "join":
            lines = [*lines[:row], "".join(lines[row : row + 2]), *lines[row + 2 :]]
        elif rng.random() < 0.3:
            lines, odd = rng.choice(WHOLE).split("\n"), "another text"
        words.append(f"{what} {odd[:20]!r} in line {row + 1}")
        text = "\n".join(lines)
    encoding = rng.choice(("utf-8",) * 12 + ("utf-16", "latin-1", "utf-8-sig", "utf-32"))
    if encoding != "utf-8":
        words.append(encoding)
    wrong = "surrogateescape" if encoding == "utf-8" else "replace"
    return text.encode(encoding, wrong), ", ".join(words)


LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
"""YAML whose last key holds 9^9 words."""
WHOLE = (
    *(
        "",
        " ",
        "\n" * 1000,
        "null",
        "[]",
        "{}",
        "0",
        "x",
        "- 1\n- 2",
        '"',
        "---\n---\n",
        "\ufeff",
        "[" * 5000,
        "{a: " * 2000,
    ),
    *(
        LAUGHS,
        "&a [*a]",
        "a: &a\n  b: *a",
        "? [a, b]\n: c",
        "1: 2\n2: 3",
        "<<: [1, 2]",
        "<<: {a: 1}",
        "method: &m {a: *m}",
    ),
    *(
        "[" * 100000,
        "'" + "x" * 100000,
        "data: !!python/name:os.system",
        "{" * 50 + "}" * 50,
        "- " * 3000,
        "a:\n" * 3,
    ),
)


def broken_tree(tree: Any, rng: random.Random) -> tuple[Any, str]:
    """One to three changes at places of a tree of dicts and lists: odd values, lost, doubled and renamed keys."""
    tree, words = copy.deepcopy(tree), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(inner(tree))
        if not places or rng.random() < 0.01:
            return rng.choice(ODD_VALUES)(), "another value for all"
        holder, key = rng.choice(places)
        what = one_of("value value value value value lose rename new swap list number", rng)
        if what == "value":
            holder[key] = rng.choice(ODD_VALUES)()
            words.append(
                f"{key!r:.20} = {holder[key]!r:.30}"
                if not isinstance(holder[key], list)
                else f"{key!r:.20} = a list"
            )
            continue
        if what == "lose":
            del holder[key]
        elif what == "rename" and isinstance(holder, dict):
            holder[
                rng.choice((str(key)[:-1], f"{key}x", str(key).upper(), "", "\u202e", "a\nb", "data", "n"))
            ] = holder.pop(key)
        elif what == "new" and isinstance(holder, dict):
            holder[rng.choice((*ODD_NAMES, "seed", "name", "kind", "steps"))] = rng.choice(ODD_VALUES)()
        elif what == "swap":
            other_holder, other_key = rng.choice(places)
            with suppress(RecursionError):  # one of the very deep values
                holder[key] = copy.deepcopy(other_holder[other_key])
        elif what == "list":
            holder[key] = [holder[key]] * rng.choice((1, 2, 50))
        elif isinstance(holder[key], int | float):
            holder[key] = holder[key] * rng.choice((-1, 0, 1e6, 10**18, 1e-30))
        words.append(f"{what} {key!r:.20}")
    return tree, ", ".join(words)


def inner(tree: Any) -> list[tuple[Any, Any]]:
    """Every place of a tree: what holds a value, and its key there."""
    found, waiting = [], [tree]
    while waiting:
        holder = waiting.pop()
        if isinstance(holder, dict | list):
            keys = list(holder) if isinstance(holder, dict) else range(len(holder))
            found += [(holder, key) for key in keys]
            waiting += [holder[key] for key in keys]
        if len(found) > 2000:
            break
    return found


def broken_json(tree: Any, rng: random.Random) -> tuple[bytes, str]:
    """A tree as a JSON file, broken as a tree, as a text, or as bytes."""
    how = rng.random()
    words = ""
    if how < 0.6:
        tree, words = broken_tree(tree, rng)
    try:
        text = json.dumps(tree, indent=rng.choice((None, 2)))
    except RecursionError:
        text, words = "[" * 3000 + "]" * 3000, "very deep"
    if how < 0.6:
        return text.encode("utf-8", "surrogateescape"), words
    return broken_text(text, rng) if how < 0.85 else broken_bytes(text.encode(), (), rng)


def broken_yaml(tree: Any, rng: random.Random) -> tuple[bytes, str]:
    """A tree as a YAML file, broken as a tree, as a text, or as bytes."""
    how = rng.random()
    words = ""
    if how < 0.55:
        tree, words = broken_tree(tree, rng)
    try:
        text = yaml.safe_dump(
            tree, sort_keys=False, allow_unicode=True, default_flow_style=rng.choice((None, False, True))
        )
    except (RecursionError, yaml.YAMLError):
        text, words = "[" * 3000 + "]" * 3000, "very deep"
    if how < 0.55:
        return text.encode("utf-8", "surrogateescape"), words
    return broken_text(text, rng) if how < 0.9 else broken_bytes(text.encode(), (), rng)
