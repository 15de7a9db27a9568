"""Records, and the tables, comparisons and pages made of them. Imports no PyTorch."""
