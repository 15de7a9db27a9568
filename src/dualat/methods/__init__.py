"""One file per system of the comparison. A method turns two batches into a loss; the training loop does the rest."""
