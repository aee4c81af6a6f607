"""Pairs of the same architecture in both libraries."""
