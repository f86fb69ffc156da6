"""Evaluation: views of an image, their fusion, scores and reports."""
