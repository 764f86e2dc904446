"""Evaluators: the official Cityscapes instance AP by class, COCO AP, and the choice between them."""
