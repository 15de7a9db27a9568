"""Data: images to learn from, what contrastive samples start from, augmentation, and batches by step number."""
