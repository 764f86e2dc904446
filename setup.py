"""What pyproject.toml cannot say of the package: configs/ is a part of it, and tools/ a package of its own."""

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

# of tools/, what makes sense in a checkout only: measurements and the installer of Detectron2
CHECKOUT_ONLY = {
    *("benchmark", "features_table", "gpu_check", "safety_table"),
    *("install_detectron2", "_detectron2_wheel"),
}


class BuildPackage(build_py):
    """Builds the package without CHECKOUT_ONLY."""

    def find_package_modules(self, package: str, package_dir: str) -> list[tuple[str, str, str]]:
        modules = super().find_package_modules(package, package_dir)
        return [m for m in modules if package != "gan_plugin_tools" or m[1] not in CHECKOUT_ONLY]


setup(
    cmdclass={"build_py": BuildPackage},
    packages=[*find_packages(include=["gan_plugin", "gan_plugin.*"]), "gan_plugin.configs", "gan_plugin_tools"],
    package_dir={"gan_plugin.configs": "configs", "gan_plugin_tools": "tools"},
    package_data={"": ["*.j2", "py.typed"], "gan_plugin.configs": ["**/*.yaml", "**/*.py"]},
)
