"""Precision is chosen by what the hardware has, and flags are left as they were found."""

import pytest
import torch

from dualat.system.precision import choose_dtype, fast_fp32, has_tensor_cores, strict_fp32

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
