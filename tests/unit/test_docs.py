"""What the README, the pages of docs/ and recipes/README.md say is so: links, commands, options, messages, names."""

from __future__ import annotations

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "recipes" / "README.md", *sorted(DOCS.rglob("*.md"))]
NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

sys.path.insert(0, str(ROOT / "scripts"))
try:
    import docs_hooks
finally:
    sys.path.remove(str(ROOT / "scripts"))

COMMANDS: dict[str, Any] = dict(docs_hooks.read_commands())


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors_of(page: Path) -> set[str]:
    """Of the headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page.read_text(encoding="utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    """MkDocs checks this too, but not as the files are read in a repository. The Python API exists in the site only."""
    links = re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)", without_code(page.read_text(encoding="utf-8")))
    for target, anchor in links:
        if Path(target).parts[:1] == ("api",):
            continue
        file = (page.parent / target).resolve() if target else page
        assert file.exists(), target
        if anchor:
            assert anchor[1:] in anchors_of(file), f"{target}{anchor}"


def commands_in(page: Path) -> Iterator[str]:
    """Lines of code blocks, and code in the text, that call `odkeras`."""
    text = page.read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"^```\w*\n(.*?)^```", text, re.M | re.S) for line in block.splitlines()]
    for code in (*lines, *re.findall(r"`(odkeras [^`\n]+)`", without_code(text))):
        line = re.sub(r"\s#.*|&\s*$", "", code.removeprefix("$ ")).strip()
        if line.startswith("odkeras ") and "[OPTIONS]" not in line:
            yield line


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_and_their_options_exist(page: Path) -> None:
    groups = {name.rpartition(" ")[0] for name in COMMANDS}
    for line in commands_in(page):
        words = shlex.split(line)
        name = max((each for each in (*COMMANDS, *groups) if f"{line} ".startswith(f"{each} ")), key=len, default="")
        known = {option for each in (COMMANDS[name].params if name in COMMANDS else ()) for option in each.opts}
        used = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert name and (words[1:2] in (["--help"], ["COMMAND"]) or name != "odkeras"), line
        assert used <= {*known, "--help"}, line


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_options_in_the_text_exist(page: Path) -> None:
    """`--gpu` and the like; options of other programs stand in code blocks."""
    known = {option for command in COMMANDS.values() for each in command.params for option in each.opts}
    used = re.findall(r"`(--[a-z][a-z0-9-]+)[^`]*`", without_code(page.read_text(encoding="utf-8")))
    if page.parent.name == "recipes":
        return  # test_recipe_docs
    assert set(used) - known <= {"--remove-base64", "--help"}


def texts_of_the_code() -> Iterator[str]:
    """Every text in the package, with a gap where a value is put in; the page's source."""
    for path in (ROOT / "odkeras").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "\0" for part in node.values)
                yield "".join(map(str, parts))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


def test_messages_that_are_explained_exist() -> None:
    """docs/troubleshooting.md has the words of the messages; `...` stands for what is put in."""
    texts = list(texts_of_the_code())
    page = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
    cells = re.findall(r"^\| (`.*?`) \| ", page, re.MULTILINE)
    assert len(cells) > 20
    for cell in cells:
        for message in re.findall(r"``(.+?)``|`([^`]+)`", cell):
            for words in filter(None, map(str.strip, "".join(message).split("..."))):
                assert any(words in text for text in texts), f"{words!r} of {cell}"


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_files_that_are_named_exist(page: Path) -> None:
    names = re.findall(r"`((?:odkeras|frontend|scripts|tests|configs)/[\w./-]*)`", page.read_text(encoding="utf-8"))
    missing = [name for name in names if not (ROOT / name).exists()]
    assert [name for name in missing if not name.startswith("odkeras/web/static")] == []  # built


def test_the_walks_name_what_the_code_has() -> None:
    rows = re.findall(r"^\| \d+ \| `([^`]+)` `(\w+)` \|", (DOCS / "architecture.md").read_text("utf-8"), re.MULTILINE)
    assert len(rows) > 25
    for file, name in rows:
        assert re.search(rf"\b(?:def|class) {name}\b", (ROOT / file).read_text(encoding="utf-8")), f"{file}: {name}"


def test_every_command_and_option_is_on_the_options_page() -> None:
    page = docs_hooks.command_sections(COMMANDS)
    assert re.findall(r"^### (.*)$", page, re.MULTILINE) == list(COMMANDS)
    assert "| `--steps-per-epoch`, `-spe` | `-1` |" in page and "`ODKERAS_DB`" in page
    for name, command in COMMANDS.items():
        section = page.split(f"### {name}\n")[1].split("\n### ")[0]
        shown = [each for each in command.params if docs_hooks.is_shown(each) and docs_hooks.is_option(each)]
        assert all(f"`{each.opts[0]}`" in section for each in shown)
    assert "annotate: `-1`; simulate: `100`; trainer: `1000`" in docs_hooks.shared_table(COMMANDS)


@pytest.mark.skipif(not (find_spec("material") and find_spec("mkdocstrings")), reason="needs pip install '.[docs]'")
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(tmp_path / "site")]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    html = (tmp_path / "site" / "options.html").read_text(encoding="utf-8")
    assert "--answers-per-round" in html and "generated --&gt;" not in html
    assert 'id="odkeras.boxes.Groundtruth"' in (tmp_path / "site" / "api" / "odkeras.html").read_text(encoding="utf-8")
