"""Recipes: keys and what they may hold, words, and how they are found."""
