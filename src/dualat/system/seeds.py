"""Seeds for independent random streams: one base seed, mixed with what the stream is for."""

import hashlib


def mix_seed(*parts: int | str) -> int:
    """A well-mixed seed in [0, 2^63) from any integers and strings, as in `mix_seed("batches", seed, epoch)`.

    Different parts, another order, or 1 instead of "1" give unrelated seeds; the same parts give the same seed on
    every machine and in every Python version. Built on BLAKE2b (RFC 7693).

    Raises:
        ValueError: no parts, or a part that is neither an integer nor a string.
    """
    if not parts or not all(isinstance(part, int | str) for part in parts):
        raise ValueError(f"mix_seed takes integers and strings, at least one: got {parts!r}.")
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        text = part.encode() if isinstance(part, str) else str(int(part)).encode()
        digest.update(f"{'s' if isinstance(part, str) else 'i'}{len(text)}:".encode() + text)
    return int.from_bytes(digest.digest(), "big") >> 1


def check_seed(seed: int, name: str = "seed") -> None:
    """ValueError unless everything that takes random numbers takes this seed: 0 to 2^63 - 1."""
    if not 0 <= seed < 2**63:
        text = seed if abs(seed) < 2**80 else "a number of more than 80 bits"
        raise ValueError(f"{name} is {text}, but must be a whole number from 0 to 2^63 - 1.")
