"""Words that settings and code share, each said once. Does not import PyTorch: settings read this file."""

from typing import Literal

Norm = Literal["L2", "Linf"]
"""Norm of a ball around an image."""
SamplerRule = Literal["L2", "gradient", "clipped"]
"""How long a sampler's step is: eta in the L2 norm, eta times the gradient (Langevin), or that with each value clipped."""
StepRule = Literal[SamplerRule, "Linf"]
"""How long a step of the gradient loop is: as a sampler's, or eta in the largest value."""
Schedule = Literal["constant", "linear", "cosine", "exponential"]
"""How the length goes over the steps: constant, falling to 0 along a line or a cosine, or to a ten-thousandth."""
Energy = Literal["joint", "marginal"]
"""E(x, y) of a class, or E(x)."""
Climb = Literal["energy", "probability"]
"""What a counterfactual climbs: f(x)[target], minus the joint energy, or log p(target | x)."""
Precision = Literal["auto", "fp32", "bf16"]
"""Of training; auto: bf16 where the hardware is fast at it."""
Activation = Literal["relu", "silu", "leaky_relu"]
"""Of a wide ResNet; leaky_relu with slope 0.2."""
OnBadImage = Literal["skip", "refuse"]
"""What to do with an image that cannot be read."""
