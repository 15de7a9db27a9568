"""One HTML page for people, from the files of a run folder: no model and no PyTorch is loaded."""
