"""Controllable object inpainting that augments a segmentation data set."""
