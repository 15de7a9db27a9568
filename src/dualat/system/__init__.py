"""Files, seeds, precision, devices, several processes."""
