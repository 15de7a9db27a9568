"""Precision is chosen by what the hardware has, and flags are left as they were found; kernels that repeat their results."""

import importlib
import os

import pytest
import torch
from torch.backends import cudnn

import dualat
from dualat.system.precision import choose_dtype, deterministic, fast_fp32, has_tensor_cores, strict_fp32

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def flags() -> tuple[bool, bool]:
    return torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32


@pytest.fixture
def capability(monkeypatch):
    def of(major: int) -> None:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device=None: (major, 0))

    return of


@pytest.mark.parametrize(("major", "fast"), [(7, False), (8, True), (9, True)])
def test_bf16_and_tf32_from_ampere_on(capability, major, fast):
    capability(major)
    assert has_tensor_cores(CUDA) == fast and not has_tensor_cores(CPU)
    assert choose_dtype("auto", CUDA) == (torch.bfloat16 if fast else torch.float32)
    assert choose_dtype("fp32", CUDA) == torch.float32 and choose_dtype("bf16", CPU) == torch.bfloat16


def test_tf32_inside_and_the_flags_as_found_outside(capability):
    found = flags()
    capability(8)
    with fast_fp32(CUDA):
        assert flags() == (True, True)
        with strict_fp32():  # an evaluation within a training
            assert flags() == (False, False)
        assert flags() == (True, True)
    assert flags() == found
    with pytest.raises(RuntimeError), fast_fp32(CUDA):
        raise RuntimeError
    assert flags() == found


def test_nothing_changes_where_there_is_no_tf32(capability):
    found = flags()
    capability(7)
    for device in (CPU, CUDA):
        with fast_fp32(device):
            assert flags() == found


def repeatable() -> tuple[bool, bool, bool]:
    return torch.are_deterministic_algorithms_enabled(), cudnn.deterministic, cudnn.benchmark


def test_deterministic_kernels_inside_and_the_flags_as_found_outside(monkeypatch):
    monkeypatch.setattr(cudnn, "benchmark", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    with deterministic(False):
        assert repeatable() == (False, False, True)
    with deterministic(True):
        assert repeatable() == (True, True, False) and os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    assert repeatable() == (False, False, True)


def test_an_operation_without_a_deterministic_kernel_is_named():
    with (
        pytest.raises(ValueError, match="deterministic is true, but put_ has no") as caught,
        deterministic(True),
    ):
        torch.zeros(4).put_(torch.tensor([0, 0]), torch.ones(2))
    assert repeatable()[0] is False and "set it to false" in str(caught.value)
    with pytest.raises(RuntimeError, match="shape"), deterministic(True):  # other errors stay what they are
        torch.zeros(2, 3) @ torch.zeros(2, 3)


@pytest.mark.parametrize("wanted", [True, False])
def test_a_run_trains_with_the_kernels_that_its_settings_name(tmp_path, monkeypatch, wanted):
    seen = []
    monkeypatch.setattr(
        importlib.import_module("dualat.run.train"), "_train", lambda *_: seen.append(repeatable()[:2])
    )
    dualat.train("digits", {"output": str(tmp_path / "run"), "device": "cpu", "deterministic": wanted})
    assert seen == [(wanted, wanted)] and repeatable()[:2] == (False, False)
