"""Data sets of other formats, opened as images with the exact masks of their objects."""

from .base import Reader, Source
from .open import FORMATS, open_source, recognised

__all__ = ["FORMATS", "Reader", "Source", "open_source", "recognised"]
