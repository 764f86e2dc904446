"""Measurements behind tools/benchmark.py and tools/gpu_check.py; a project's own stand in its folder."""
