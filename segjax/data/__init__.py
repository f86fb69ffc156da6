"""Data sets: what labels mean, where examples lie, and the host's pipeline."""
