"""The training loop: stages, optimiser, EMA, checkpoints, tracking. It knows no metric: evaluators are handed to it."""
