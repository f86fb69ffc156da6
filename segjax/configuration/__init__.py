"""Recipes: config keys with their allowed values, words, loading and overview."""
