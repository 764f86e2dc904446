"""Procedural steel sheets in the format of Kaggle's Severstal set, for trying things without it."""

from .writer import write_toy_steel

__all__ = ["write_toy_steel"]
