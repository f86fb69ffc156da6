"""What a run will need, found by compiling its programs."""
