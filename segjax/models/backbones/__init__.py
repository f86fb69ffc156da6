"""Backbones: from an image to the stages that heads work on."""
