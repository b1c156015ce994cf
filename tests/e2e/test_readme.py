"""The README's commands, run as written."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from odkeras.pipeline import list_templates
from odkeras.shapes import generate_shapes

README = Path(__file__).parents[2] / "README.md"


def console_blocks() -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return ["\n".join(line.removeprefix("$ ") for line in block.splitlines()) for block in blocks]


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def run(script: str, folder: Path) -> str:
    """Run a block like a shell would; what it left in the background is ended with it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with (folder / "output.txt").open("w+") as output:
        process = subprocess.Popen(
            ["bash", "-e", "-c", script],
            cwd=folder,
            env={**os.environ, "PATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(timeout=280)
        finally:
            with suppress(ProcessLookupError):  # nothing is left in the background
                os.killpg(process.pid, signal.SIGTERM)
        output.seek(0)
        text = output.read()
    assert process.returncode == 0, text
    return text


@pytest.mark.e2e
@pytest.mark.timeout(600)
def test_the_commands_of_the_readme_run_as_written(tmp_path: Path) -> None:
    """In order, in a directory where `make demo` has left its pictures. A machine may lack curl, never Python."""
    generate_shapes(tmp_path / "demo" / "shapes")
    first, second = console_blocks()
    assert "mAP" in run(first, tmp_path)
    assert len(json.loads((tmp_path / "shapes" / "report" / "curve.json").read_text())) == 3
    ask = f"{sys.executable} -c 'import sys, urllib.request as u; print(u.urlopen(sys.argv[1]).read().decode())'"
    output = run(second.replace("curl", ask).replace("8501", str(free_port())), tmp_path)
    assert '"state": "AVAILABLE"' in output
    assert len(list((tmp_path / "out").glob("*.png"))) == len(list((tmp_path / "demo/shapes/images").glob("*.jpg")))


def test_every_file_that_the_readme_links_to_exists() -> None:
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", README.read_text(encoding="utf-8"))
    assert targets
    assert [target for target in targets if not (README.parent / target).exists()] == []


def test_the_host_in_the_recipes_guide_uses_what_there_is() -> None:
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
