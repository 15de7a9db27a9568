"""Settings of the benchmark. Does not import PyTorch: the command line reads this file."""

from dualat.strict import strict

TASKS = ("train_step", "sampling", "attack", "autoattack", "classification", "data", "logging")
PRECISIONS = ("auto", "fp32", "tf32", "bf16")


@strict
class BenchSettings:
    """What is timed."""

    network: str = "wrn-28-2"
    """Network: wrn-DEPTH-WIDTH or a timm name."""
    channels: int = 3
    """Channels of the images."""
    image_size: int = 32
    """Side of the images, in pixels."""
    classes: int = 10
    """Number of classes."""
    batch_size: int = 64
    """Images per batch."""
    steps: int = 10
    """T: steps of contrastive samples, and of sampling."""
    attack_steps: int = 10
    """Steps of the L2 attack, alone and inside the training step."""
    eps: float = 0.5
    """Radius of the attack."""
    repeats: int = 7
    """Timed calls of every contender."""
    precisions: tuple[str, ...] = ("auto",)
    """Precisions to time: fp32, tf32 (products of float32 in TF32) and bf16 (autocast); auto: all that are fast here, and fp32."""
    autoattack_attacks: tuple[str, ...] = ("apgd-ce",)
    """Attacks of the task autoattack, each with its whole budget: apgd-ce, apgd-t, fab-t, square, apgd-dlr, fab."""
    autoattack_images: int = 4
    """Images of the task autoattack."""
    tasks: tuple[str, ...] = TASKS
    """What to time: train_step (stage 2), sampling, attack (PGD), autoattack, classification, data (reading and
    augmenting the batches of a training step), logging (what a training step that is logged writes)."""

    def __post_init__(self) -> None:
        for name, known in (("tasks", TASKS), ("precisions", PRECISIONS)):
            given = getattr(self, name)
            if wrong := [g for g in given if g not in known]:
                raise ValueError(f"{name} has {wrong[0]!r}, but must be any of {', '.join(known)}.")
            if not given:
                raise ValueError(f"{name} is empty: give any of {', '.join(known)}.")
        if self.autoattack_images < 1:
            raise ValueError(f"autoattack_images is {self.autoattack_images}, but must be 1 or more.")
        if min(self.channels, self.image_size, self.batch_size, self.steps, self.attack_steps) < 1:
            raise ValueError("channels, image_size, batch_size, steps and attack_steps must be 1 or more.")
        if self.repeats < 3:
            raise ValueError(f"repeats is {self.repeats}, but a median needs 3 or more.")
        if not 2 <= self.classes <= 10**6 or not 0 < self.eps < float("inf"):
            raise ValueError("classes must be 2 to 1,000,000, and eps above 0 and finite.")
