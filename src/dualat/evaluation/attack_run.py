"""Attacks one after the other, each on the images that those before it left standing; kept on the way, and gone on from."""

import json
import math
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from dualat.system.files import keep

Progress = Callable[[str, int, int], None]
Known = dict[tuple[str, ...], tuple[Tensor, int]]
"""By the attacks of some run: in which stage each image fell, and how many were projected."""


class WrongState(ValueError):
    """A file that is to be gone on from is damaged, or of another evaluation. Nothing is measured yet."""


@dataclass
class AttackRun:
    """How far attacks one after the other are on some images, and the file that keeps it."""

    stages: tuple[str, ...]
    fell: Tensor
    """(N,): the stage in which each image fell; len(stages): it stands."""
    stage: int = 0
    chunks: int = 0
    projected: int = 0
    path: Path | None = None
    key: str = ""
    known: Known = field(default_factory=dict)

    def open(self, path: Path, key: str) -> None:
        """Go on from the file, if it is there."""
        self.path, self.key = path, key
        if not os.path.exists(path):
            return
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            theirs, self.fell = found["key"], torch.tensor(found["fell"])
            self.stage, self.chunks, self.projected = (found[k] for k in ("stage", "chunks", "projected"))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise WrongState(f"{path} is no state of AutoAttack: give another path, or remove it.") from error
        if theirs != key:
            raise WrongState(
                f"{path} is the state of another evaluation (weights, images, attacks, eps, batch size, seed or "
                "pyautoattack's version differ): give another path, or remove it to begin anew."
            )

    def save(self) -> None:
        if self.path is not None:
            fields = {k: getattr(self, k) for k in ("key", "stages", "stage", "chunks", "projected")}
            text = json.dumps({**fields, "fell": self.fell.tolist()}) + "\n"
            keep(self.path, lambda path: path.write_text(text, encoding="utf-8"))

    def finish(
        self,
        attack: Callable[[str, Tensor], tuple[Tensor, int]],
        batch_size: int,
        progress: Progress | None,
    ) -> None:
        """Run what is left: attack(name, positions of images) -> which of them fell, how many were projected."""
        done = [stages for stages in self.known if stages == self.stages[: len(stages)]]
        if done and (known := max(done, key=len)) and len(known) > self.stage:
            fell, self.projected = self.known[known]
            self.stage, self.chunks = len(known), 0
            self.fell = fell.where(fell < self.stage, len(self.stages))
        while self.stage < len(self.stages):
            name = self.stages[self.stage]
            # those that fell in this very stage too: its chunks stay the same when a run goes on
            members = (self.fell >= self.stage).nonzero().flatten()
            for which in members.split(batch_size)[self.chunks : math.ceil(len(members) / batch_size)]:
                fallen, projected = attack(name, which)
                self.fell[which[fallen]] = self.stage
                self.chunks, self.projected = self.chunks + 1, self.projected + projected
                self.save()
                if progress is not None:
                    progress(name, self.chunks, math.ceil(len(members) / batch_size))
            self.stage, self.chunks = self.stage + 1, 0
            self.known[self.stages[: self.stage]] = self.fell.clone(), self.projected
