"""One run from a recipe."""
