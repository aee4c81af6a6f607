"""Recipes: one task per file, the same in the other library."""
