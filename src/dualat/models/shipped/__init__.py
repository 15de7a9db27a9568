"""Models that come with dualat: NAME.safetensors, and NAME.json with what was measured of it and how it was made."""

from pathlib import Path

FOLDER = Path(__file__).parent


def shipped_models() -> list[str]:
    """Names of the models that come with dualat."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def shipped_file(source: str | Path) -> Path | None:
    """The weights file of a shipped model's name; None where it is no such name, or names something that exists."""
    known = str(source) in shipped_models() and not Path(source).exists()
    return FOLDER / f"{source}.safetensors" if known else None
