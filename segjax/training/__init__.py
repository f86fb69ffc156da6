"""Training: the loop, the step, and what a recipe says of both."""
