"""Training: the loop, the step, and the parts that a recipe configures."""
