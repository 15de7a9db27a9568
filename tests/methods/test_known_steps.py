"""One whole training step of SADA-JEM and of JEM++ against NumPy: sampler, loss, SAM, optimiser, each stated here by hand.

The network: 2x2 images x, h = W x + b, logits f = V tanh(h) + c, so that every derivative is a line.
"""

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from dualat.methods.base import Batch
from dualat.methods.registry import build_method, method_settings
from dualat.models.model import LoadedModel
from dualat.training.optimizer import build_optimizer
from dualat.training.settings import OptimizerSettings, StageSettings
from dualat.training.step import train_step

Array = np.ndarray
W = np.array([[1.5, -2.0, 0.5, 1.0], [-1.0, 2.5, 3.0, -0.5]])
B = np.array([0.1, -0.2])
V = np.array([[2.0, -1.0], [-1.5, 3.0], [0.5, 1.0]])
C = np.array([0.0, 0.3, -0.3])
REAL = np.array([[0.1, 0.9, 0.3, 0.4], [0.8, 0.2, 0.6, 0.5], [0.0, 1.0, 0.7, 0.2]])
CLASSIFIED = np.array([[0.2, 0.7, 0.1, 0.9], [0.6, 0.6, 0.3, 0.1], [0.5, 0.4, 1.0, 0.0]])
STARTS = np.array([[0.5, 0.5, 0.5, 0.5], [0.9, 0.05, 0.4, 0.7], [0.3, 0.3, 0.98, 0.2]])
LABELS = np.array([0, 2, 1])
LIMIT, LR, DECAY, MOMENTUM = 2.0, 0.1, 5e-4, 0.9
"""LIMIT: a derivative of 1 per unit of [-1, 1] is one of 2 per unit of [0, 1]."""


def forward(p: list[Array], x: Array) -> tuple[Array, Array]:
    """tanh(h) and the softmax of the logits."""
    w, b, v, c = p
    a = np.tanh(x @ w.T + b)
    f = a @ v.T + c
    e = np.exp(f - f.max(1, keepdims=True))
    return a, e / e.sum(1, keepdims=True)


def slope_of_first_layer(p: list[Array], x: Array) -> Array:
    """ds/dh: of logsumexp f."""
    a, q = forward(p, x)
    return (q @ p[2]) * (1 - a**2)


def gradient(p: list[Array], samples: Array) -> list[Array]:
    """Of L = -(mean s(x_real) - mean s(x-)) + CE in W, b, V, c."""
    found = [np.zeros_like(part) for part in p]
    for x, kind in ((REAL, "real"), (samples, "sample"), (CLASSIFIED, "classified")):
        a, q = forward(p, x)
        df = {"real": -q, "sample": q, "classified": q - np.eye(3)[LABELS]}[kind] / len(x)
        dh = (df @ p[2]) * (1 - a**2)
        for part, more in zip(found, (dh.T @ x, dh.sum(0), df.T @ a, df.sum(0)), strict=True):
            part += more
    return found


def stepped(p: list[Array], g: list[Array]) -> list[Array]:
    """A first step of SGD with momentum and weight decay, without Nesterov: the velocity is the gradient."""
    return [part - LR * (own + DECAY * part) for part, own in zip(p, g, strict=True)]


def sada_jem(p: list[Array], steps: int, eta: float, rho: float) -> list[Array]:
    x = STARTS.copy()
    for _ in range(steps):
        x = (x + eta * (slope_of_first_layer(p, x) @ p[0]).clip(-LIMIT, LIMIT)).clip(0, 1)
    g = gradient(p, x)
    norm = np.sqrt(sum(((np.abs(part) * own) ** 2).sum() for part, own in zip(p, g, strict=True)))
    top = [part + rho * part**2 * own / norm for part, own in zip(p, g, strict=True)]
    return stepped(p, gradient(top, x))


def jempp(p: list[Array], outer: int, inner: int, eta: float) -> list[Array]:
    x = STARTS.copy()
    for _ in range(outer):
        held = slope_of_first_layer(p, x)
        for _ in range(inner):
            x = (x + eta * (held @ p[0]).clip(-LIMIT, LIMIT)).clip(0, 1)
    return stepped(p, gradient(p, x))


def images(x: Array) -> torch.Tensor:
    return torch.from_numpy(x).view(-1, 1, 2, 2)


def ours(name: str, **groups: dict[str, Any]) -> list[Array]:
    """The weights after one step of the library's."""
    network = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Tanh(), nn.Flatten(), nn.Linear(2, 3)).double()
    parts = [p for p in network.parameters()]
    with torch.no_grad():
        for parameter, value in zip(parts, (W, B, V, C), strict=True):
            parameter.copy_(torch.from_numpy(value).view_as(parameter))
    method = build_method(method_settings({"name": name, **groups}), 3)
    sgd = OptimizerSettings(lr=LR, momentum=MOMENTUM, weight_decay=DECAY, nesterov=False)
    stage = StageSettings(method=method.settings, steps=1, batch_size=3, optimizer=sgd)
    labels = torch.from_numpy(LABELS)
    batch = Batch(images(CLASSIFIED), labels, images(REAL), labels, images(STARTS))
    model = cast(LoadedModel, network)
    train_step(model, method, batch, build_optimizer(model, sgd), LR, stage, torch.float32)
    shapes = (W, B, V, C)
    return [p.detach().numpy().reshape(s.shape) for p, s in zip(parts, shapes, strict=True)]


@pytest.mark.parametrize("rho", [0.1, 2.0])
def test_a_step_of_sada_jem(rho: float):
    chain = {"steps": 3, "step_size": 0.05, "buffer": 8, "noise": 0.0, "input_noise": 0.0}
    found = ours("sada-jem", chain=chain, sharpness={"rho": rho})
    expected = sada_jem([W, B, V, C], 3, 0.05, rho)
    for mine, theirs, before in zip(found, expected, (W, B, V, C), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6)
        assert np.abs(theirs - before).max() > 1e-4


def test_a_step_of_jempp():
    chain = {"steps": 2, "inner_steps": 3, "step_size": 0.02, "buffer": 8, "noise": 0.0, "input_noise": 0.0}
    found = ours("jempp", chain=chain)
    expected = jempp([W, B, V, C], 2, 3, 0.02)
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-6)
    held_once = jempp([W, B, V, C], 1, 6, 0.02)
    assert max(np.abs(a - b).max() for a, b in zip(expected, held_once, strict=True)) > 1e-5
