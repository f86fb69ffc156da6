"""Run folders: config, checkpoints, events, progress."""
