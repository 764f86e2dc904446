"""Generators, discriminators and the encoder, at any width and power-of-two size."""
