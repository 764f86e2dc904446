"""Evaluators: official Cityscapes AP by class, COCO AP and AR, Boundary AP, AP by image, and their choice."""
