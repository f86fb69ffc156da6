"""Evaluation: the views of an image, their fusion, the scores and what is kept of them."""
