"""Data sets: specs, sources, scans, splits and the data path on the host."""
