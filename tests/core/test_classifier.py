"""How any classifier is called: its device and precision, which of its outputs are logits, and what is refused."""

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from dualat.core.classifier import check_images, check_logits, device_of, dtype_of, logits_of, take_logits
from dualat.core.energy import JointEnergyModel

LOGITS = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
MAPS = torch.zeros(2, 8, 4, 4)
FEATURES = torch.zeros(2, 64)
Outputs = namedtuple("Outputs", ["aux_logits", "logits"])
HALVES = [torch.float16, torch.bfloat16]


class Gives(nn.Module):
    """No parameters; the same output for all images."""

    def __init__(self, output: object):
        super().__init__()
        self.output = output

    def forward(self, x: Tensor) -> object:
        return self.output


@pytest.mark.parametrize(
    "output",
    [
        LOGITS,
        (LOGITS,),
        [LOGITS],
        (LOGITS, MAPS),
        (MAPS, LOGITS, None),
        {"logits": LOGITS, "features": FEATURES},
        OrderedDict(loss=torch.tensor(0.0), logits=LOGITS),  # as Hugging Face has it
        SimpleNamespace(logits=LOGITS, hidden_states=(MAPS,)),
        Outputs(LOGITS + 1, LOGITS),  # as torchvision's Inception has it
    ],
    ids=lambda output: type(output).__name__,
)
def test_logits_are_taken_where_it_is_plain_which_they_are(output):
    assert torch.equal(take_logits(output), LOGITS)
    model = JointEnergyModel(Gives(output))
    assert torch.equal(model(torch.rand(2, 1, 2, 2)), LOGITS)
    assert torch.equal(model.logits(torch.rand(2, 1, 2, 2)), LOGITS)


@pytest.mark.parametrize(
    ("output", "told"),
    [
        ((LOGITS, FEATURES), r"a tuple of tensors \(2, 3\), \(2, 64\)"),
        ([LOGITS, LOGITS], r"a list of tensors \(2, 3\), \(2, 3\)"),
        ((MAPS,), r"a tuple of tensors \(2, 8, 4, 4\)"),
        ((), "an empty tuple"),
        ({"out": LOGITS, "features": FEATURES}, "a dict with the keys 'out', 'features'"),
        ({"logits": [1.0]}, "a dict with the keys 'logits'"),
        (None, "a NoneType"),
    ],
    ids=str,
)
def test_other_outputs_are_one_sentence(output, told):
    with pytest.raises(ValueError, match=rf"the model gives {told}.*: wrap it in a module .*\.$"):
        logits_of(Gives(output), torch.rand(2, 1, 2, 2))


def test_the_device_is_that_of_parameters_or_buffers_or_the_cpu():
    assert device_of(nn.Linear(2, 2, device="meta")).type == "meta"
    assert device_of(nn.BatchNorm2d(3, affine=False, device="meta")).type == "meta"
    assert device_of(nn.Flatten()) == torch.device("cpu")


@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
def test_images_reach_a_model_in_its_own_precision_and_gradients_come_back_in_theirs(dtype):
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3)).to(dtype)
    x = torch.rand(2, 1, 2, 2, requires_grad=True)
    logits = logits_of(model, x)
    assert dtype_of(model) == logits.dtype == dtype
    (gradient,) = torch.autograd.grad(logits.float().sum(), x)
    assert gradient.dtype == torch.float32
    torch.testing.assert_close(logits.float(), model.float()(x), rtol=0.02, atol=0.02)


def test_the_precision_is_that_of_the_tensor_that_meets_the_images_first():
    class Scaled(nn.Module):
        """Normalises in float32, then goes on in half precision."""

        mean: Tensor

        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.tensor(0.5))
            self.network = nn.Linear(4, 2).half()

        def forward(self, x: Tensor) -> Tensor:
            assert x.dtype == torch.float32
            return self.network((x.flatten(1) - self.mean).half())

    assert logits_of(Scaled(), torch.rand(2, 1, 2, 2)).shape == (2, 2)
    assert dtype_of(nn.Sequential(nn.Conv2d(1, 1, 1).bfloat16(), nn.BatchNorm2d(1))) == torch.bfloat16
    assert dtype_of(nn.Flatten()) is None and dtype_of(Gives(LOGITS)) is None
    assert dtype_of(nn.Embedding(2, 2).to(torch.float8_e4m3fn)) is None  # no arithmetic in it


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.full((2, 1, 2, 2), 255.0), r"images must lie in \[0, 1\], but go from 255 to 255"),
        (torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1), r"go from -1 to 1"),
        (torch.tensor([0.5, torch.nan]).view(2, 1, 1, 1), r"lie in \[0, 1\], but some are not finite"),
        (torch.tensor([0.5, torch.inf]).view(2, 1, 1, 1), r"lie in \[0, 1\], but some are not finite"),
        (torch.zeros(2, 1, 2, 2, dtype=torch.uint8), r"in \[0, 1\], not uint8 of shape \(2, 1, 2, 2\)"),
        (torch.zeros(1, 2, 2), r"of shape \(N, C, H, W\) in \[0, 1\], not float32 of shape \(1, 2, 2\)"),
    ],
    ids=str,
)
def test_images_outside_0_1_are_refused_by_name(x, message):
    with pytest.raises(ValueError, match=message):
        check_images(x)
    model = JointEnergyModel(nn.Sequential(nn.Flatten(), nn.Linear(4, 3)))
    for ask in (model.logits, model.energy, model.predict_proba):
        with pytest.raises(ValueError, match=message):
            ask(x)


def test_images_inside_pass_as_they_are():
    for dtype in (*HALVES, torch.float32, torch.float64):
        x = torch.rand(2, 3, 4, 4).to(dtype)
        assert check_images(x) is x
    assert len(check_images(torch.zeros(0, 3, 4, 4))) == 0
    check_images(torch.tensor([-1e-7, 1 + 1e-7]).view(2, 1, 1, 1))  # as resizing in float32 rounds
    free = torch.tensor([-3.0, 4.0]).view(2, 1, 1, 1)
    assert check_images(free, boxed=False) is free
    with pytest.raises(ValueError, match="must be finite, but some are not"):
        check_images(free * torch.inf, boxed=False)
    check_images(torch.empty(2, 3, 4, 4, device="meta"))  # without values there is nothing to compare


def test_logits_that_are_not_finite_are_refused_with_their_number():
    assert check_logits(LOGITS) is LOGITS
    for wrong in (torch.nan, torch.inf, -torch.inf):
        logits = LOGITS.clone()
        logits[1, 2] = wrong
        with pytest.raises(ValueError, match="logits of 1 of 2 images are not finite"):
            check_logits(logits)
    with pytest.raises(ValueError, match=r"logits must be of shape \(N, K\), not \(2, 8, 4, 4\)"):
        check_logits(MAPS)
    model = JointEnergyModel(Gives(LOGITS * torch.nan))
    for ask in (model.logits, model.energy, model.predict_proba):
        with pytest.raises(ValueError, match="logits of 2 of 2 images are not finite"):
            ask(torch.rand(2, 1, 2, 2))
