"""Packaging of gan_plugin; the tested versions of everything are in requirements.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
# read, not imported: importing the package needs torch
VERSION = re.search(r'^__version__ = "(.+)"', (HERE / "gan_plugin/__init__.py").read_text(encoding="utf-8"), re.M)[1]

setup(
    name="gan_plugin",
    version=VERSION,
    description="Adversarial training of instance segmentation for Detectron2",
    license="Apache-2.0",
    license_files=["LICENSE"],
    packages=find_packages(include=["gan_plugin", "gan_plugin.*"]),
    package_data={"": ["*.j2"]},
    python_requires=">=3.11,<3.14",
    # Detectron2 is missing because it is not on PyPI: tools/install_detectron2.py installs it.
    install_requires=[
        "torch>=2.11,<2.16",
        "torchvision>=0.26",
        "numpy>=2.0",
        "setuptools<82",  # detectron2.model_zoo imports pkg_resources
        "scipy>=1.14",
        "pillow>=11",
        "opencv-python-headless>=4.11",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "pycocotools>=2.0.8",
        "faster-coco-eval>=1.8",
        "cityscapesScripts>=2.2.4",
        "shapely>=2.0",
        "omegaconf>=2.3",
        "hydra-core>=1.3",
        "yacs>=0.1.8",
        "PyYAML>=6.0",
        "safetensors>=0.5",
        "tabulate>=0.9",
        "termcolor>=2.4",
        "cloudpickle>=3.0",
        "tensorboard>=2.17",
        "matplotlib>=3.9",
        "Jinja2>=3.1",
        "tqdm>=4.66",
    ],
    extras_require={
        # projects/: CityscapesTuning; CarGAN and COIGAN
        "tuning": ["optuna>=5.0"],
        "images": ["torch-fidelity>=0.4"],
        "test": ["pytest>=8.3", "pytest-xdist>=3.6", "hypothesis>=6.100"],
        "lint": ["ruff>=0.9", "mypy>=1.14"],
    },
)
