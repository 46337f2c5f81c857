# SPDX-License-Identifier: Apache-2.0
"""What the house rules look at: the files of the checkout, their imports, functions and texts.

Scanners take text and give findings, so that each can be shown a bad snippet.
"""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGE = ROOT / "src" / "otelauto"
CODE = (".py", ".pyi", ".pyx", ".pxd", ".c", ".h", ".go", ".js", ".java", ".rs", ".sh")


def files(*suffixes: str) -> list[Path]:
    """The files that are in git or would be (not ignored), with one of the endings."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    ).stdout.decode()
    paths = (ROOT / name for name in listed.split("\0") if name)
    # A file may be listed in git and deleted in the checkout.
    return sorted({p for p in paths if p.suffix in suffixes and p.is_file()})


def name(path: Path) -> str:
    """The path inside the checkout."""
    return str(path.relative_to(ROOT))


def imports(source: str, module: str) -> Iterator[tuple[int, str]]:
    """(line, module or object) of each import in ``source``, wherever it stands.

    ``module`` is the dotted name of the file; relative imports are resolved against it.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = module.split(".")[: -node.level]
                base = ".".join([*above, base] if base else above)
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def module_of(path: Path) -> str:
    """The dotted name of a file of the package."""
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts)


def misdirected(source: str, module: str, allowed: Mapping[str, tuple[str, ...]]) -> list[str]:
    """Imports of ``module`` that its room may not make.

    ``allowed`` gives, for each room, the modules of the package beside its own that it may use.
    """
    room = module.split(".")[1]
    welcome = tuple(f"otelauto.{target}" for target in (room, *allowed[room]))
    return [
        f"{module}:{line} imports {target}"
        for line, target in imports(source, module)
        if target.split(".")[0] == "otelauto"
        and not any(target == each or target.startswith(f"{each}.") for each in welcome)
    ]


def functions(source: str) -> Iterator[tuple[str, int, int]]:
    """(name, first line, number of lines) of each function, decorators and docstring left out."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body
            if ast.get_docstring(node) is not None:
                body = body[1:] or body
            last = node.end_lineno or node.lineno
            yield node.name, node.lineno, last - body[0].lineno + 1


def c_functions(source: str) -> Iterator[tuple[str, int, int]]:
    """Like :func:`functions` for C in kernel style: the braces of a function stand in column 0."""
    started = None
    lines = source.splitlines()
    for number, line in enumerate(lines, 1):
        if line == "{":
            started = number
        elif line == "}" and started is not None:
            yield lines[started - 2].strip(), started, number - started - 1
            started = None


def meanings(source: str) -> list[str]:
    """Names of the counters that ``source`` declares; ``{prefix}`` stays where it is computed."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
            continue
        if node.func.id == "Meaning":
            named = {keyword.arg: keyword.value for keyword in node.keywords}
            found.append(_text(node.args[0] if node.args else named["name"]))
    return found


def _text(node: ast.expr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return ast.unparse(node).removeprefix("f").strip("'\"")


def links(markdown: str) -> Iterator[str]:
    """Targets of the links and pictures of a page, code left out."""
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", markdown, flags=re.DOTALL)
    for match in re.finditer(r"\]\(([^)\s]+)\)", prose):
        yield match[1]


def anchors(markdown: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    prose = re.sub(r"```.*?```", "", markdown, flags=re.DOTALL)
    found = set()
    for match in re.finditer(r"^#+ +(.*?)\s*$", prose, flags=re.MULTILINE):
        plain = re.sub(r"[^\w\- ]", "", match[1].lower())
        found.add(plain.replace(" ", "-"))
    return found


def commands(markdown: str) -> list[str]:
    """The lines of the shell blocks of a page, comments and prompts left out."""
    found = []
    blocks = re.findall(r"```(?:sh|bash|shell|console)\n(.*?)```", markdown, flags=re.DOTALL)
    for line in "\n".join(blocks).splitlines():
        word = line.strip().removeprefix("$ ")
        if word and not word.startswith("#"):
            found.append(word)
    return found


def phony(makefile: str) -> list[str]:
    """The names that a Makefile declares to be no files."""
    line = re.search(r"^\.PHONY:(.*)$", makefile, flags=re.MULTILINE)
    return line[1].split() if line else []


def targets(makefile: str) -> dict[str, str]:
    """The named targets of a Makefile with their ``## help`` (empty where there is none)."""
    found = {}
    for target in phony(makefile):
        rule = re.search(rf"^{re.escape(target)}:.*?(?:##(.*))?$", makefile, flags=re.MULTILINE)
        if rule:
            found[target] = (rule[1] or "").strip()
    return found
