"""One file per metric: its formula, and `measure(context)`, which gives its records. Rows: registry.py."""
