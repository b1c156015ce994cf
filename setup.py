"""setup.cfg has all but this: configs/ and recipes/ at the top become packages of odkeras, which `find:` cannot say."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["odkeras", "odkeras.*"]), "odkeras.configs", "odkeras.recipes"],
    package_dir={"odkeras.configs": "configs", "odkeras.recipes": "recipes"},
)
