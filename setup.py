"""What setup.cfg cannot say: configs/ and recipes/ at the top become packages of odkeras, the page is built before."""

import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

sys.path.insert(0, str(Path(__file__).resolve().parent / "scripts"))

import build_page


class BuildWithPage(build_py):
    """An editable install takes the page from where it lies: `make install` or scripts/build_page.py build it."""

    def run(self) -> None:
        if not self.editable_mode:
            build_page.build()
        super().run()


setup(
    packages=[*find_packages(include=["odkeras", "odkeras.*"]), "odkeras.configs", "odkeras.recipes"],
    package_dir={"odkeras.configs": "configs", "odkeras.recipes": "recipes"},
    cmdclass={"build_py": BuildWithPage},
)
