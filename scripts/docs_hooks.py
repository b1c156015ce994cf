"""MkDocs hooks that generate pages while the site is built, so that they always match the code.

| page | generated from |
| --- | --- |
| index.md | README.md |
| prodigy.md | recipes/README.md |
| options.md | the commands of `odkeras`; docs/options.md has the text around the tables |
| api/*.md | the modules of the package; mkdocstrings reads their source and imports nothing |

Nothing here imports TensorFlow.
"""

from __future__ import annotations

import ast
import posixpath
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "odkeras"
OPTIONS_MARK = "<!-- options: generated -->"
SHARED_MARK = "<!-- options that commands share: generated -->"
GENERATED = {"index.md": "README.md", "prodigy.md": "recipes/README.md"}
TITLES = {"index.md": "Home", "prodigy.md": "Prodigy recipes"}
# The package's own modules share one page; each sub-package has its own page.
CORE_PAGE = "odkeras"
# Only listed, because these modules are not meant to be called by other programs.
NOT_API = {"odkeras.cli", "odkeras.web", "odkeras.integrations", "odkeras.simulation"}


def on_files(files: Any, config: Any) -> Any:
    """Event: add the generated pages, and the API pages to the navigation."""
    from mkdocs.structure.files import File

    pages = {name: markdown_for_site(ROOT / source, name) for name, source in GENERATED.items()}
    api = dict(api_pages())
    for path, text in {**pages, **api}.items():
        files.append(File.generated(config, path, content=text))
    reference = next(entry["Reference"] for entry in config.nav if isinstance(entry, dict) and "Reference" in entry)
    reference[:] = [entry for entry in reference if not (isinstance(entry, dict) and "Python API" in entry)]
    reference.append({"Python API": list(api)})
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Event: redirect links to README.md and recipes/README.md to their pages, and fill the markers in options.md."""
    path = page.file.src_uri
    if path not in GENERATED:
        markdown = _with_links_to_generated(markdown, posixpath.dirname(path))
    if path != "options.md":
        return markdown
    commands = dict(read_commands())
    return markdown.replace(SHARED_MARK, shared_table(commands)).replace(OPTIONS_MARK, command_sections(commands))


def markdown_for_site(source: Path, page: str) -> str:
    """The text of a Markdown file with its links rewritten for the site.

    Args:
        source: a file of the repository outside docs/.
        page: path of its page on the site.
    """
    text = source.read_text(encoding="utf-8")
    folder = source.parent.relative_to(ROOT).as_posix()
    rewritten = re.sub(
        r"(!?)\[([^\]]*)\]\((?!https?:|#)([^)#\s]*)(#[^)]*)?\)",
        lambda link: _link_for_site(*link.groups(default=""), folder=folder),
        text,
    )
    return f"---\ntitle: {TITLES[page]}\n---\n\n{rewritten}"


def _link_for_site(image: str, text: str, target: str, anchor: str, *, folder: str) -> str:
    """The link to the site's page; only the text if the file is not on the site."""
    path = posixpath.normpath(posixpath.join(folder, target))
    for page, source in GENERATED.items():
        if path == source:
            return f"[{text}]({page}{anchor})"
    if path.startswith("docs/"):
        return f"{image}[{text}]({path.removeprefix('docs/')}{anchor})"
    return text if text.startswith("`") else f"{text} (`{path}`)" if path not in text else f"`{text}`"


def _with_links_to_generated(markdown: str, folder: str) -> str:
    for name, source in GENERATED.items():
        outside = posixpath.relpath(source, posixpath.join("docs", folder))
        markdown = re.sub(rf"\]\({re.escape(outside)}(?=[#)])", f"]({posixpath.relpath(name, folder or '.')}", markdown)
    return markdown


def read_commands() -> Iterator[tuple[str, Any]]:
    """All commands with their full names, such as `odkeras db out`, in the order of `odkeras --help`."""
    import typer

    from odkeras.cli import app

    yield from _leaves("odkeras", typer.main.get_command(app))


def _leaves(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    children: Mapping[str, Any] = getattr(command, "commands", {})
    if not children:
        yield name, command
    for child, sub in children.items():
        yield from _leaves(f"{name} {child}", sub)


def is_option(parameter: Any) -> bool:
    return str(parameter.param_type_name) == "option"


def is_shown(parameter: Any) -> bool:
    """Whether `--help` shows the parameter, and it is not `--help` itself, which every command has."""
    return not getattr(parameter, "hidden", False) and parameter.name != "help"


def shared_table(commands: Mapping[str, Any]) -> str:
    """A row for each option that several commands share, with its default in each of them."""
    owners: dict[str, list[tuple[str, Any]]] = {}
    for name, command in commands.items():
        for parameter in filter(is_option, command.params):
            if is_shown(parameter):
                owners.setdefault(_spelling(parameter), []).append((name.removeprefix("odkeras "), parameter))
    rows = ["| option | commands: default |", "| --- | --- |"]
    for spelling, found in owners.items():
        if len(found) > 1:
            rows.append(f"| {spelling} | {_defaults(found)} |")
    return "\n".join(rows)


def _defaults(found: list[tuple[str, Any]]) -> str:
    """The commands grouped by default value."""
    groups: dict[str, list[str]] = {}
    for command, parameter in found:
        groups.setdefault(_default(parameter), []).append(command)
    return "; ".join(f"{', '.join(names)}{f': {default}' if default else ''}" for default, names in groups.items())


def command_sections(commands: Mapping[str, Any]) -> str:
    return "\n\n".join(_section(name, command) for name, command in commands.items())


def _section(name: str, command: Any) -> str:
    """The content of a command's `--help` as Markdown."""
    help_text = re.sub(r"(?<!\n)\n(?!\n)", " ", (command.help or "").strip())
    arguments = [each for each in command.params if not is_option(each)]
    usage = " ".join([name, "[OPTIONS]", *(_argument_name(each) for each in arguments)])
    variables = getattr(command.callback, "variables", {})
    rows = [_row(each, variables.get(each.name, "")) for each in command.params if is_shown(each)]
    table = "\n".join(["| | default | |", "| --- | --- | --- |", *rows]) if rows else ""
    example = (command.epilog or "").removeprefix("Example: ").strip()
    parts = [f"### {name}", help_text, f"```text\n{usage}\n```", table]
    return "\n\n".join([*filter(None, parts), *([f"```bash\n{example}\n```"] if example else [])])


def _row(parameter: Any, variable: str) -> str:
    if is_option(parameter):
        label, default = _spelling(parameter), _default(parameter)
    else:
        label, default = (
            f"`{_argument_name(parameter).strip('[].')}`",
            "" if parameter.required else _default(parameter),
        )
    text = getattr(parameter, "help", None) or ""
    if variable:
        text = f"{text} Environment variable: `{variable}`."
    return f"| {label} | {'required' if parameter.required else default} | {_cell(text)} |"


def _argument_name(parameter: Any) -> str:
    name = str(parameter.metavar or parameter.name).strip("{}[]").upper()
    dots = "..." if parameter.nargs == -1 else ""
    return f"{name}{dots}" if parameter.required else f"[{name}{dots}]"


def _spelling(parameter: Any) -> str:
    """The option's spellings, such as `--steps-per-epoch`, `-spe`. Those with _, for compatibility with TensorFlow
    Serving, are left out."""
    spellings = [each for each in parameter.opts if "_" not in each]
    return ", ".join(f"`{each}`" for each in sorted(spellings, key=lambda each: not each.startswith("--")))


def _default(parameter: Any) -> str:
    default = parameter.default
    if getattr(parameter, "is_flag", False):
        return "off"
    if default in (None, "", (), []) or callable(default) or "UNSET" in str(default).upper():
        return ""
    return f"`{default}`"


def _cell(text: str) -> str:
    return re.sub(r"\s+", " ", text).replace("|", "\\|").strip()


def api_pages() -> Iterator[tuple[str, str]]:
    """An index of all modules, a page for the package's own modules, and a page for each sub-package."""
    groups = module_groups()
    yield "api/index.md", api_index(groups)
    for group, modules in groups.items():
        if group in NOT_API:
            continue
        directives = "\n\n".join(f"::: {module}" for module in modules)
        yield f"api/{group}.md", f"---\ntitle: {group}\n---\n\n# {group}\n\n{directives}\n"


def module_groups() -> dict[str, list[str]]:
    """All public modules that have a docstring, grouped by page."""
    groups: dict[str, list[str]] = {CORE_PAGE: []}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        names = parts[:-1] if parts[-1] == "__init__" else parts
        if any(name.startswith("_") for name in names) or not summary_of(path):
            continue
        is_own = len(names) == 1 or (len(names) == 2 and path.name != "__init__.py")
        group = CORE_PAGE if is_own else ".".join(names[:2])
        groups.setdefault(group, []).append(".".join(names))
    return {group: sorted(modules) for group, modules in groups.items() if modules}


def api_index(groups: Mapping[str, list[str]]) -> str:
    lines = ["---\ntitle: Modules\n---\n", "# Modules\n", "The first line of each module's docstring."]
    for group, modules in groups.items():
        lines += [f"\n## {group}\n", "| module | |", "| --- | --- |"]
        for module in modules:
            summary = _cell(summary_of(task_file(module)))
            name = f"`{module}`" if group in NOT_API else f"[{module}]({group}.md#{module})"
            lines.append(f"| {name} | {summary} |")
    return "\n".join(lines) + "\n"


def task_file(module: str) -> Path:
    path = ROOT.joinpath(*module.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def summary_of(path: Path) -> str:
    """The first paragraph of a module's docstring; "" if it has none."""
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.partition("\n\n")[0]
