"""The commands of the README and of the tutorial, run as written."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from odkeras.pipeline import list_templates

ROOT = Path(__file__).parents[2]
README, TUTORIAL = ROOT / "README.md", ROOT / "docs" / "tutorial.md"
STATIC = Path("odkeras", "web", "static")
QUICKSTART_S = 600


def commands_of(page: Path) -> str:
    """The page's commands (```bash), in order, as a person pastes them."""
    commands = "".join(re.findall(r"^```bash\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    assert commands
    return commands


def on_port(commands: str, port: int) -> str:
    """`odkeras annotate` on a free port, and without a browser."""
    changed = re.sub(r"^(odkeras annotate [^#\n]*)", rf"\1 --no-open --web-port {port} ", commands, flags=re.MULTILINE)
    assert str(port) in changed
    return changed


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def copy_tree(folder: Path) -> Path:
    """What a fresh clone has, and what `make install` adds: the environment and the page."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (ROOT / name).is_file():  # not deleted meanwhile
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    if (ROOT / STATIC).is_dir():
        shutil.copytree(ROOT / STATIC, folder / STATIC, dirs_exist_ok=True)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


class Shell:
    """A new shell in a folder that runs commands up to the first that fails; what it left in the background is ended
    with it."""

    def __init__(self, commands: str, folder: Path) -> None:
        self._output = (folder / "output.txt").open("w+")
        environment = {"HOME": str(folder), "PATH": "/usr/local/bin:/usr/bin:/bin", "LANG": "C.UTF-8"}
        self.process = subprocess.Popen(
            ["bash", "-e", "-c", commands],
            cwd=folder,
            env={**environment, "PYTHONPATH": str(folder)},  # the copy, not the tree that the environment was made for
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(ProcessLookupError):  # nothing is left in the background
            os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(timeout=30)
        self._output.close()

    def output(self) -> str:
        return Path(self._output.name).read_text(encoding="utf-8")

    def wait_for_page(self, url: str) -> str:
        """The page's HTML, as soon as it is there."""
        pages: list[str] = []

        def is_there() -> bool:
            with suppress(OSError), urllib.request.urlopen(url, timeout=5) as response:
                pages.append(response.read().decode())
            return bool(pages)

        self.wait_for(is_there, f"no page at {url}")
        return pages[0]

    def wait_for(self, is_there: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + QUICKSTART_S
        while time.monotonic() < deadline and self.process.poll() is None:
            if is_there():
                return
            time.sleep(0.2)
        raise AssertionError(f"{otherwise}:\n{self.output()}")

    def press_ctrl_c(self) -> None:
        """As a terminal does: everything in the foreground gets the signal."""
        os.killpg(self.process.pid, signal.SIGINT)

    def wait(self) -> None:
        assert self.process.wait(timeout=QUICKSTART_S) == 0, self.output()


@pytest.mark.e2e
@pytest.mark.timeout(1300)
def test_the_tutorial_runs_as_pasted_in_a_new_shell(tmp_path: Path) -> None:
    """In order, in a fresh copy of the tree in which no other command has been run. It used to need the pictures that
    only `make demo` draws, and an environment that was activated before.

    Ports alone are changed: others may use the usual ones. A machine may lack curl, never Python.
    """
    folder = copy_tree(tmp_path / "odkeras")
    page_port = free_port()
    commands = on_port(commands_of(TUTORIAL), page_port).replace("8501", str(free_port()))
    if shutil.which("curl") is None:
        ask = "python -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())'"
        commands = re.sub(r"^curl", ask, commands, flags=re.MULTILINE)
    with Shell(commands, folder) as shell:
        assert "<title>" in shell.wait_for_page(f"http://127.0.0.1:{page_port}/")
        shell.press_ctrl_c()
        shell.wait()
        output = shell.output()
    assert "mAP" in output and "stopped; all answers are in" in output
    assert len(json.loads((folder / "shapes" / "report" / "curve.json").read_text())) == 3
    assert '"state": "AVAILABLE"' in output
    drawn = {path.stem for path in (folder / "out").glob("*.png")}
    assert drawn == {path.stem for path in (folder / "demo" / "shapes" / "images").glob("*.jpg")}


@pytest.mark.e2e
@pytest.mark.timeout(1300)
def test_the_quickstart_of_the_readme_runs_on_a_folder_of_photographs(tmp_path: Path) -> None:
    """`db in` stands in for the person who annotates; the page runs until the first version is there. No weights are
    downloaded: tests have no network."""
    folder = copy_tree(tmp_path / "odkeras")
    photos = folder / "photos"  # the shell's home
    photos.mkdir()
    for number in range(3):
        Image.fromarray(np.full((48, 64, 3), 60 * number, np.uint8)).save(photos / f"{number}.jpg")
    span = {"label": "cat", "points": [[8, 8], [8, 40], [40, 40], [40, 8]]}
    answer = {"path": str(photos / "1.jpg"), "answer": "accept", "spans": [span], "width": 64, "height": 48}
    (folder / "answers.jsonl").write_text(json.dumps(answer) + "\n", encoding="utf-8")
    port = free_port()
    commands = re.sub(r" --weights \w+", "", on_port(commands_of(README), port))
    commands = commands.replace("odkeras db out", "odkeras db in pets answers.jsonl --project pets\nodkeras db out", 1)
    with Shell(commands, folder) as shell:
        assert "<title>" in shell.wait_for_page(f"http://127.0.0.1:{port}/")
        shell.wait_for(lambda: any((folder / "pets" / "export").glob("[0-9]*")), "no version")
        shell.press_ctrl_c()
        shell.wait()
    coco = json.loads((folder / "pets.json").read_text(encoding="utf-8"))
    assert len(coco["annotations"]) == 1
    assert [category["name"] for category in coco["categories"]] == ["cat", "dog"]
    assert (folder / "boxes.csv").read_text(encoding="utf-8").startswith("path,")


def test_the_example_host_in_the_recipes_guide_imports_existing_names() -> None:
    """The example compiles, and every name it imports from odkeras exists."""
    text = (README.parent / "recipes" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    compile(code, "recipes/README.md", "exec")
    imports = "\n".join(line for line in code.splitlines() if line.startswith(("from ", "import ")))
    exec(imports, {})


def test_every_template_says_what_was_measured() -> None:
    folder = README.parent / "configs"
    assert {path.stem for path in folder.glob("*.config")} == set(list_templates())
    for path in folder.glob("*.config"):
        header = path.read_text(encoding="utf-8").partition("\nmodel {")[0]
        for word in ("# Command:", "# Hardware:", "# Measured:"):
            assert word in header, f"{path.name}: {word}"
        assert "filled in" not in header, path.name
