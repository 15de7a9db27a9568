"""What a run folder holds beside its records, read with suspicion: lines of metrics, settings, pictures."""

import base64
import io
import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from PIL import Image

from dualat.system.files import read_yaml

WIDEST = 1400
"""Pictures wider than this are made smaller: a page stays small enough to send."""


@dataclass
class Picture:
    """A picture inside the page."""

    name: str
    uri: str
    width: int
    height: int


def number(value: Any) -> float:
    """A JSON value as a float; what is no number is NaN."""
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan


def numbers(value: Any) -> list[float]:
    """A JSON list as floats; what is no number is NaN, what is no list is empty."""
    return [number(v) for v in value] if isinstance(value, list) else []


def read_metrics(path: Path) -> dict[int, dict[str, list[tuple[float, float]]]]:
    """Lines of metrics.jsonl as {stage: {name: [(step, value)]}}. A line that a kill cut short is left out."""
    stages: dict[int, dict[str, list[tuple[float, float]]]] = {}
    if not path.is_file():
        return stages
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
            stage, step = int(entry["stage"]), float(entry["step"])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
        for name, value in entry.items():
            if name not in ("stage", "step") and not math.isnan(number(value)):
                stages.setdefault(stage, {}).setdefault(str(name), []).append((step, float(value)))
    return dict(sorted(stages.items()))


def read_config(path: Path) -> tuple[str, dict[str, Any]]:
    """Text of config.yaml, and its values as far as it is YAML."""
    if not path.is_file():
        return "", {}
    text = path.read_text(encoding="utf-8", errors="replace")
    try:
        values = read_yaml(text)
    except yaml.YAMLError:
        values = None
    return text, values if isinstance(values, dict) else {}


def setting(config: dict[str, Any], name: str) -> Any:
    """The value of a dotted setting, None where there is none."""
    value: Any = config
    for part in name.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def methods(config: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Settings of each stage's method, by the stage's number; of runs that did not yet say them stage by stage, those of the
    run, as stage 0."""
    found: dict[int, dict[str, Any]] = {}
    for name, stage in config.items():
        method = stage.get("method") if isinstance(stage, dict) else None
        if isinstance(method, dict) and (number := re.fullmatch(r"stage(\d{1,3})", str(name))):
            found[int(number[1])] = method
    return found or {0: config | {"name": config.get("method")}}


def read_picture(path: Path) -> Picture | None:
    """A PNG as a data URI, reduced where it is very wide; None where it is no picture."""
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            opened.load()
            picture, data, kind = opened, path.read_bytes(), "png"
            if picture.width > WIDEST:
                picture = picture.convert("RGB").resize(
                    (WIDEST, max(1, picture.height * WIDEST // picture.width))
                )
                buffer = io.BytesIO()
                picture.save(buffer, format="JPEG", quality=90)
                data, kind = buffer.getvalue(), "jpeg"
            uri = f"data:image/{kind};base64,{base64.b64encode(data).decode('ascii')}"
            return Picture(path.stem, uri, picture.width, picture.height)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None


def sample_grids(folder: Path, on_the_way: int = 4) -> list[Picture]:
    """final.png, and before it at most `on_the_way` grids made while training, evenly picked, in their order."""
    paths = sorted(folder.glob("stage*.png"), key=lambda p: [int(d) for d in re.findall(r"\d+", p.stem)])
    if len(paths) > on_the_way:
        paths = [paths[round(i * (len(paths) - 1) / (on_the_way - 1))] for i in range(on_the_way)]
    final = folder / "final.png"
    return [p for path in [*([final] if final.is_file() else []), *paths] if (p := read_picture(path))]
