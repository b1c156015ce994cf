"""setup.cfg has all but this: configs/ at the top becomes the package odkeras.configs, which `find:` cannot say."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["odkeras", "odkeras.*"]), "odkeras.configs"],
    package_dir={"odkeras.configs": "configs"},
)
