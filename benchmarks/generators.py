"""How fast generators of 256x256 ImageNet pictures sample, beside classifiers that sample themselves.

    python benchmarks/generators.py --device cuda --output benchmarks/results/generators-h100.json

Networks have their published sizes and random weights: speed does not depend on what they learnt. A system whose steps
are all alike is timed by one step (the median of --repeats), times its published number of steps, and by what comes
before and after; VAR, whose ten scales grow, as a whole. One system after the other, all in the same precision, eager.

| system | one step | steps |
|---|---|---|
| ADM-G | U-Net on pixels, then the gradient of a noise-aware classifier | 250 |
| LDM-4-G | U-Net on 64x64 latents, with and without the class; a decoder at the end | 250 |
| DiT-XL/2-G | transformer on 32x32 latents, with and without the class; a decoder at the end | 250 |
| VAR-d16 | transformer on the tokens of one scale, with and without the class; a decoder at the end | 10 |
| a recipe's | the gradient of the classifier's own energy | the recipe's `sampling.steps` |

Sources: ADM-G (arXiv 2105.05233), LDM (2112.10752), DiT (2212.09748), VAR (2404.02905), DAT (2510.13872).
Needs `pip install dualat[generators]`, which brings diffusers.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from dualat.bench.measure import clock
from dualat.bench.run import peak_memory
from dualat.config import load_recipe
from dualat.core.loop import frozen, pgd
from dualat.core.objectives import lower_energy
from dualat.models.registry import build_network
from dualat.results.record import versions
from dualat.system.devices import device_name
from dualat.system.files import write_text
from dualat.system.precision import autocast, choose_device, choose_dtype

sys.path.insert(0, str(Path(__file__).parent))
from var import SCALES, VAR

CLASSES, GUIDED_STEPS = 1000, 250
RECIPES = ("imagenet-resnet50", "imagenet-wrn50-4", "imagenet-convnext-large")


class System(Protocol):
    """What samples, step by step."""

    steps: int
    alike: bool
    """Whether all steps cost the same."""

    def start(self, labels: Tensor) -> None: ...
    def step(self, k: int) -> None: ...
    def finish(self) -> Tensor: ...


def guided(known_and_unknown: Tensor, strength: float) -> Tensor:
    """Classifier-free guidance (Ho and Salimans 2022): the prediction with the class, pushed away from that without."""
    known, unknown = known_and_unknown.chunk(2)
    return unknown + strength * (known - unknown)


class NoisyClassifier(nn.Module):
    """ADM's classifier of noisy pictures: the descending half of a U-Net, its mean, a linear layer.

    The published one pools by attention, which adds 1M weights to these 53M.
    """

    def __init__(self, size: int, width: int):
        super().__init__()
        self.encoder = adm_unet(size, width, outputs=3, classes=None)
        self.encoder.up_blocks, self.encoder.conv_norm_out, self.encoder.conv_out = None, None, None
        self.norm, self.head = nn.GroupNorm(32, 4 * width), nn.Linear(4 * width, CLASSES)

    def forward(self, x: Tensor, t: Tensor) -> Tensor:
        time = self.encoder.time_embedding(self.encoder.time_proj(t).to(x.dtype))
        h = self.encoder.conv_in(x)
        for block in self.encoder.down_blocks:
            h, _ = block(h, time)
        h = self.encoder.mid_block(h, time)
        return self.head(nn.functional.silu(self.norm(h)).mean((2, 3)))


def adm_unet(size: int, width: int, outputs: int, classes: int | None) -> Any:
    """ADM's U-Net: two residual blocks at each of six resolutions, attention at the last three."""
    from diffusers import UNet2DModel

    return UNet2DModel(
        sample_size=size,
        in_channels=3,
        out_channels=outputs,
        layers_per_block=2,
        block_out_channels=tuple(width * m for m in (1, 1, 2, 2, 4, 4)),
        down_block_types=("ResnetDownsampleBlock2D",) * 3 + ("AttnDownBlock2D",) * 3,
        up_block_types=("AttnUpBlock2D",) * 3 + ("ResnetUpsampleBlock2D",) * 3,
        attention_head_dim=min(64, width),
        resnet_time_scale_shift="scale_shift",
        downsample_type="resnet",
        upsample_type="resnet",
        num_class_embeds=classes,
    )


class Diffusion(nn.Module):
    """What the diffusion models share: a schedule, noise to start from, a decoder of latents at the end or none."""

    steps, alike = GUIDED_STEPS, True
    decoder: nn.Module | None
    latent: tuple[int, int, int]

    def start(self, labels: Tensor) -> None:
        self.schedule.set_timesteps(self.steps, device=labels.device)
        self.labels, self.x = labels, torch.randn(len(labels), *self.latent, device=labels.device)

    def step(self, k: int) -> None:
        t = self.schedule.timesteps[k]
        self.x = self.schedule.step(self.predict(t).float(), t, self.x).prev_sample

    def predict(self, t: Tensor) -> Tensor:
        """What the schedule takes: the noise, and its variance where that is learnt."""
        raise NotImplementedError

    def finish(self) -> Tensor:
        return self.x if self.decoder is None else self.decoder(self.x)


class ADMG(Diffusion):
    def __init__(self, size: int = 256, width: int = 256, classifier_width: int = 128):
        from diffusers import DDPMScheduler

        super().__init__()
        self.latent, self.schedule = (3, size, size), DDPMScheduler(variance_type="learned_range")
        self.unet, self.decoder = adm_unet(size, width, outputs=6, classes=CLASSES), None
        self.classifier = NoisyClassifier(size, classifier_width)

    def predict(self, t: Tensor) -> Tensor:
        found = self.unet(self.x, t, self.labels).sample
        with torch.enable_grad():
            x = self.x.detach().requires_grad_()
            logits = self.classifier(x, t.expand(len(x)))
            chosen = logits.float().log_softmax(1)[range(len(x)), self.labels].sum()
            (gradient,) = torch.autograd.grad(chosen, x)
        noise, variance = found.chunk(2, dim=1)
        scale = (1 - self.schedule.alphas_cumprod[int(t)]).sqrt().item()
        return torch.cat([noise - scale * gradient, variance], dim=1)


class LDM4G(Diffusion):
    def __init__(self, size: int = 64, width: int = 192, context: int = 512, decoder_width: int = 128):
        from diffusers import DDIMScheduler, UNet2DConditionModel

        super().__init__()
        self.latent, self.schedule = (3, size, size), DDIMScheduler()
        self.unet = UNet2DConditionModel(
            sample_size=size,
            in_channels=3,
            out_channels=3,
            layers_per_block=2,
            block_out_channels=tuple(width * m for m in (1, 2, 3, 5)),
            down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * 3,
            up_block_types=("CrossAttnUpBlock2D",) * 3 + ("UpBlock2D",),
            cross_attention_dim=context,
            attention_head_dim=tuple(width * m // 32 for m in (1, 2, 3, 5)),
        )
        self.classes = nn.Embedding(CLASSES + 1, context)
        self.decoder = decoder_of((1, 2, 4), decoder_width, channels=3, codes=8192)

    def predict(self, t: Tensor) -> Tensor:
        classes = torch.cat([self.labels, torch.full_like(self.labels, CLASSES)])
        found = self.unet(self.x.repeat(2, 1, 1, 1), t, self.classes(classes)[:, None]).sample
        return guided(found, 1.5)


class DiTXL2G(Diffusion):
    """diffusers repeats the embedders of time and class in every block: 750M weights for the published 675M."""

    def __init__(self, size: int = 32, layers: int = 28, heads: int = 16, decoder_width: int = 128):
        from diffusers import DDPMScheduler, DiTTransformer2DModel

        super().__init__()
        self.latent, self.schedule = (4, size, size), DDPMScheduler(variance_type="learned_range")
        self.transformer = DiTTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=72,
            in_channels=4,
            out_channels=8,
            num_layers=layers,
            sample_size=size,
            patch_size=2,
            num_embeds_ada_norm=CLASSES,
        )
        self.decoder = decoder_of((1, 2, 4, 4), decoder_width, channels=4)

    def predict(self, t: Tensor) -> Tensor:
        classes = torch.cat([self.labels, torch.full_like(self.labels, CLASSES)])
        found = self.transformer(
            self.x.repeat(2, 1, 1, 1), timestep=t.expand(len(classes)), class_labels=classes
        ).sample
        noise, variance = found.chunk(2, dim=1)
        return torch.cat([guided(noise, 1.5), variance.chunk(2)[0]], dim=1)


class VARD16(nn.Module):
    steps, alike = len(SCALES), False

    def __init__(self, depth: int = 16, decoder_width: int = 160):
        super().__init__()
        self.transformer = VAR(depth)
        self.decoder = decoder_of((1, 1, 2, 2, 4), decoder_width, channels=32)

    def start(self, labels: Tensor) -> None:
        self.transformer.start(labels)

    def step(self, k: int) -> None:
        self.transformer.draw_scale(k)

    def finish(self) -> Tensor:
        return self.decoder(self.transformer.canvas)


class Decoder(nn.Module):
    """The second half of an autoencoder: latents into pictures."""

    def __init__(self, autoencoder: Any):
        super().__init__()
        self.before, self.decoder = autoencoder.post_quant_conv, autoencoder.decoder

    def forward(self, latents: Tensor) -> Tensor:
        return self.decoder(self.before(latents))


def decoder_of(multiples: tuple[int, ...], width: int, channels: int, codes: int = 0) -> Decoder:
    """Latent diffusion's decoder; of a vector-quantised autoencoder where there are codes."""
    from diffusers import AutoencoderKL, VQModel

    widths = tuple(width * m for m in multiples)
    shared: dict[str, Any] = {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "layers_per_block": 2,
        "latent_channels": channels,
    }
    return Decoder(VQModel(num_vq_embeddings=codes, **shared) if codes else AutoencoderKL(**shared))


class Classifier(nn.Module):
    """A recipe's network, drawing samples down its own joint energy."""

    alike = True

    def __init__(self, recipe: str, size: int = 256):
        super().__init__()
        config = load_recipe(recipe)
        self.steps, self.size, self.shape = config.sampling.steps, config.sampling.step_size, (3, size, size)
        self.network = build_network(config.network, self.shape, CLASSES, [0.5] * 3, [0.25] * 3)
        self.network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def start(self, labels: Tensor) -> None:
        self.labels, self.x = labels, torch.rand(len(labels), *self.shape, device=labels.device)

    def step(self, k: int) -> None:
        del k
        self.x = pgd(self.network, self.x, lower_energy(self.labels), steps=1, step_size=self.size)

    def finish(self) -> Tensor:
        return self.x


SYSTEMS: dict[str, Callable[[], nn.Module]] = {
    "ADM-G": ADMG,
    "LDM-4-G": LDM4G,
    "DiT-XL/2-G": DiTXL2G,
    "VAR-d16": VARD16,
}


class Operations(TorchDispatchMode):
    """Counts floating-point operations, those of gradients too, for which PyTorch's own counter has no room in a loop."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        if (count := flop_registry.get(func._overloadpacket)) is not None:
            self.total += count(*args, **(kwargs or {}), out_val=result)
        return result


def timed(
    system: System, batch: int, repeats: int, dtype: torch.dtype, device: torch.device
) -> dict[str, Any]:
    """Seconds, operations and memory of drawing one batch."""
    labels = torch.arange(batch, device=device) % CLASSES

    def seconds(work: Callable[[], object]) -> float:
        began = clock(device)
        work()
        return clock(device) - began

    def whole() -> None:
        for k in range(system.steps):
            system.step(k)

    part = (lambda: system.step(0)) if system.alike else whole
    times = system.steps if system.alike else 1
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with frozen(system), torch.no_grad(), autocast(dtype, device):
        system.start(labels)
        with Operations() as counted:
            part()  # the first call, which warms up
        operations = times * counted.total
        found = []
        for _ in range(repeats):
            system.start(labels)
            found.append(seconds(part))
        with Operations() as counted:
            images = system.finish()
        operations += counted.total
        last = statistics.median(seconds(system.finish) for _ in range(repeats))
    total = times * statistics.median(found) + last
    return {
        "steps": system.steps,
        "million_weights": round(sum(p.numel() for p in system.parameters()) / 1e6, 1),
        "image": list(images.shape[1:]),
        "seconds_of_" + ("a_step" if system.alike else "all_steps"): [float(f"{s:.4g}") for s in found],
        "seconds_of_the_end": float(f"{last:.4g}"),
        "images_per_second": float(f"{batch / total:.4g}"),
        "tflop_per_image": round(operations / batch / 1e12, 3),
        "peak_memory_mib": round(peak_memory(device) / 2**20) if device.type == "cuda" else None,
    }


def main() -> None:
    known = [*SYSTEMS, *RECIPES]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--systems", nargs="+", choices=known, default=known)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", choices=("auto", "fp32", "bf16"), default="auto")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--output", type=Path, help="file for the result (JSON)")
    arguments = parser.parse_args()
    if find_spec("diffusers") is None:
        sys.exit("diffusers is missing: pip install 'dualat[generators]' brings it.")
    if arguments.batch_size < 1 or arguments.repeats < 1:
        sys.exit("--batch-size and --repeats must be 1 or more.")
    try:
        device = choose_device(arguments.device)
    except ValueError as error:
        sys.exit(str(error))
    dtype = choose_dtype(arguments.precision, device)
    rows = {}
    for name in arguments.systems:
        torch.manual_seed(0)
        with torch.device(device):
            system = SYSTEMS[name]() if name in SYSTEMS else Classifier(name)
        rows[name] = timed(system.to(device).eval(), arguments.batch_size, arguments.repeats, dtype, device)
        print(name, json.dumps(rows[name]), flush=True)
        del system
    result = {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "precision": str(dtype).removeprefix("torch."),
        "batch_size": arguments.batch_size,
        "systems": rows,
        "versions": versions() | {"diffusers": version("diffusers")},
    }
    if arguments.output:
        write_text(arguments.output, json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
