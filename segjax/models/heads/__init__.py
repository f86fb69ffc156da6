"""Heads: from a backbone's stages to class scores."""
