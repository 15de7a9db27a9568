"""VAR-d16's shape, to be timed with random weights: one transformer that predicts an image scale by scale.

    at scale k:  tokens_k ~ p(. | class, tokens of the scales before);   canvas += refine_k(upsample(codebook(tokens_k)))

Ten maps of tokens from 1x1 to 16x16 are drawn, each at once; keys and values of earlier scales are kept. Guidance
(Ho and Salimans 2022) runs a second copy of the batch without its classes. Source: VAR (arXiv 2404.02905), with the
settings of its README's samples: guidance 1.5, the 900 likeliest tokens, of these the likeliest that hold 96 %.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SCALES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
TOP_K, TOP_P, GUIDANCE = 900, 0.96, 1.5


class Block(nn.Module):
    """Attention over all scales so far and a two-layer network, both scaled and shifted by the class (adaptive LayerNorm)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.condition = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.first = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.second = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.project = nn.Linear(width, 3 * width)
        self.merge = nn.Linear(width, width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor, condition: Tensor, cache: list[Tensor]) -> Tensor:
        """x (n, tokens of this scale, width); condition (n, 1, width); cache: keys and values so far, extended here."""
        gain1, scale1, shift1, gain2, scale2, shift2 = self.condition(condition).chunk(6, dim=-1)
        h = self.project(self.first(x) * (1 + scale1) + shift1)
        query, key, value = h.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        if cache:
            key, value = torch.cat([cache[0], key], dim=2), torch.cat([cache[1], value], dim=2)
        cache[:] = [key, value]
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        x = x + gain1 * self.merge(seen)
        return x + gain2 * self.mlp(self.second(x) * (1 + scale2) + shift2)


class VAR(nn.Module):
    """The transformer with its codebook and the convolutions that add a scale to the canvas.

    Args:
        depth: blocks, and heads; the width is 64 times as large.
    """

    def __init__(self, depth: int = 16, classes: int = 1000, vocabulary: int = 4096, channels: int = 32):
        super().__init__()
        width = 64 * depth
        self.classes = nn.Embedding(classes + 1, width)  # the last one: no class
        self.begin = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.scale = nn.Embedding(len(SCALES), width)
        self.position = nn.Parameter(0.02 * torch.randn(1, sum(s * s for s in SCALES), width))
        self.embed = nn.Linear(channels, width)
        self.blocks = nn.ModuleList(Block(width, depth) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm_condition = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))
        self.head = nn.Linear(width, vocabulary)
        self.codebook = nn.Embedding(vocabulary, channels)
        self.refine = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in range(4))

    def start(self, labels: Tensor) -> None:
        """Forget everything; begin images of these classes (n,)."""
        known = self.classes(labels)
        unknown = self.classes.weight[-1].expand_as(known)
        self.condition = torch.cat([known, unknown])[:, None]
        self.caches: list[list[Tensor]] = [[] for _ in self.blocks]
        self.canvas = torch.zeros(len(labels), self.codebook.embedding_dim, SCALES[-1], SCALES[-1])
        self.canvas = self.canvas.to(labels.device)
        self.tokens = self.condition + self.begin

    def draw_scale(self, k: int) -> None:
        """Draw all tokens of scale k, add them to the canvas and prepare the next scale's input."""
        done, side = sum(s * s for s in SCALES[:k]), SCALES[k]
        x = self.tokens + self.scale.weight[k] + self.position[:, done : done + side * side]
        for block, cache in zip(self.blocks, self.caches, strict=True):
            x = block(x, self.condition, cache)
        scale, shift = self.norm_condition(self.condition).chunk(2, dim=-1)
        known, unknown = self.head(self.norm(x) * (1 + scale) + shift).float().chunk(2)
        strength = GUIDANCE * k / (len(SCALES) - 1)
        tokens = draw((1 + strength) * known - strength * unknown)
        values = self.codebook(tokens).transpose(1, 2).unflatten(2, (side, side))
        values = F.interpolate(values.float(), size=(SCALES[-1], SCALES[-1]), mode="bicubic")
        refine = self.refine[round(3 * k / (len(SCALES) - 1))]
        self.canvas = self.canvas + 0.5 * values + 0.5 * refine(values)
        if k + 1 < len(SCALES):
            coarse = F.interpolate(self.canvas.float(), size=(SCALES[k + 1], SCALES[k + 1]), mode="area")
            self.tokens = self.embed(coarse.flatten(2).transpose(1, 2)).repeat(2, 1, 1)


def draw(logits: Tensor) -> Tensor:
    """Tokens (n, t) from logits (n, t, vocabulary): among the TOP_K likeliest, of these the likeliest that hold TOP_P."""
    logits, order = logits.topk(min(TOP_K, logits.shape[-1]), dim=-1)
    probability = logits.softmax(-1)
    before = probability.cumsum(-1) - probability
    probability = probability.masked_fill(before > TOP_P, 0.0)
    index = torch.multinomial(probability.flatten(0, 1), 1).view(*probability.shape[:2], 1)
    return order.gather(-1, index)[..., 0]
