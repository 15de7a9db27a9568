"""One file per metric, its formula and source on top; results are records (record.py)."""
