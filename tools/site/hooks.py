# SPDX-License-Identifier: Apache-2.0
"""Hooks of MkDocs (mkdocs.yml): the pages of docs/ as they are, with the repository around them.

The pages are written to be read in the repository, too. So links lead to files beside docs/: here
each file that is linked becomes a page of the site, and the link leads there. The navigation is
what docs/README.md lists. A link that leads nowhere stays as it is, and MkDocs complains.

Sources: https://www.mkdocs.org/user-guide/configuration/#hooks, /dev-guide/plugins/#events.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent.parent
INDEX = "docs/README.md"
PICTURES = ROOT / ".build" / "site" / "mermaid.min.js"
PICTURES_URI = "assets/mermaid.min.js"
# Where a page of the repository is on the site, if not under repository/.
PLACES = {"README.md": "index.md", INDEX: "contents.md"}
LINK = re.compile(r"(?P<code>```.*?```|`[^`\n]*`)|(?<=\]\()(?P<target>[^)\s]+)", re.DOTALL)
CODE = re.compile(r"`[^`\n]*`")
CELL = re.compile(r"<td>.*?</td>", re.DOTALL)
NAME = re.compile(r"(?<=<code>)[^<]{13,}(?=</code>)")
# The file of the repository that a page of the site is made of.
SOURCES: dict[str, str] = {}
PICTURE_FILES = (".svg", ".png")
LANGUAGES = {
    ".c": "c", ".h": "c", ".json": "json", ".py": "python", ".service": "ini", ".sh": "sh",
    ".toml": "toml", ".yaml": "yaml", ".yml": "yaml",
}  # fmt: skip


def place(path: str) -> str:
    """Where the file ``path`` of the repository is on the site: a path as MkDocs wants it."""
    if path in PLACES:
        return PLACES[path]
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    return f"repository/{path}" + ("" if path.endswith(".md") else ".md")


def target_of(page: str, link: str) -> str | None:
    """The file or directory of the repository that a link leads to; ``None``: to none."""
    path = link.partition("#")[0]
    if not path or re.match(r"[a-z]+:", link):
        return None
    target = posixpath.normpath(posixpath.join(posixpath.dirname(page), path))
    outside = target.split("/")[0] == ".."
    return target if (ROOT / target).exists() and not outside else None


def is_page(path: str) -> bool:
    """Whether the file ``path`` becomes a page that is not there yet; pictures do not."""
    return not path.endswith(PICTURE_FILES) and place(path) not in SOURCES


def links(markdown: str) -> list[str]:
    """The targets of the links and pictures of a page, code left out."""
    return [match["target"] for match in LINK.finditer(markdown) if match["target"]]


def moved(markdown: str, page: str) -> str:
    """``page`` of the repository with its links as they are on the site."""
    here = posixpath.dirname(place(page))

    def lead(match: re.Match[str]) -> str:
        link = match["target"]
        target = target_of(page, link) if link else None
        if target is None or target.endswith(PICTURE_FILES):
            return match[0]
        _, mark, anchor = link.partition("#")
        return posixpath.relpath(place(target), here or ".") + mark + anchor

    return LINK.sub(lead, markdown)


def unescaped(markdown: str) -> str:
    r"""Tables with ``|`` in code: GitHub wants ``\|`` there, Python-Markdown ``|``."""
    return "\n".join(
        CODE.sub(lambda code: code[0].replace("\\|", "|"), line) if line.startswith("|") else line
        for line in markdown.split("\n")
    )


def shown(path: str) -> str:
    """A page that shows the file ``path``, or the names in the directory."""
    if (ROOT / path).is_dir():
        names = sorted(each.name for each in (ROOT / path).iterdir())
        return f"# {path}\n\n" + "".join(f"- `{name}`\n" for name in names)
    text = (ROOT / path).read_text(encoding="utf-8")
    if path.endswith(".md"):
        return text
    language = LANGUAGES.get(Path(path).suffix, "text")
    return f"# {path}\n\n````{language}\n{text.rstrip()}\n````\n"


def navigation(index: str) -> list[dict[str, Any]]:
    """The headings of the index as sections, their lists as pages."""
    found: list[dict[str, Any]] = [{"otelauto": "index.md"}]
    here = found
    for line in index.splitlines():
        heading = re.match(r"## +(.+)", line)
        item = re.match(r"- \[(.+?)\]\(([^)]+)\)", line)
        if heading:
            here = []
            found.append({heading[1]: here})
        elif item and (target := target_of(INDEX, item[2])):
            here.append({item[1]: place(target)})
    found.append({"All pages": place(INDEX)})
    return found


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    config.nav = navigation((ROOT / INDEX).read_text(encoding="utf-8"))
    return config


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Add the pages of the repository that are linked, and theirs, and the script for pictures."""
    index = files.get_file_from_path("README.md")
    if index is not None:
        files.remove(index)
    SOURCES.update({file.src_uri: f"docs/{file.src_uri}" for file in files.documentation_pages()})
    waiting = [*SOURCES.values(), "README.md", INDEX]
    while waiting:
        path = waiting.pop()
        if place(path) not in SOURCES:
            SOURCES[place(path)] = path
            content, hidden = shown(path), InclusionLevel.NOT_IN_NAV
            page = File.generated(config, place(path), content=content, inclusion=hidden)
            files.append(page)
        if path.endswith(".md"):
            targets = {target_of(path, link) for link in links(shown(path))} - {None}
            waiting += [each for each in targets if each and is_page(each)]
    files.append(File.generated(config, PICTURES_URI, abs_src_path=str(PICTURES)))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    source = SOURCES[page.file.src_uri]
    return unescaped(moved(markdown, source)) if source.endswith(".md") else markdown


def breakable(cell: re.Match[str]) -> str:
    """A cell of a table in which long names may be broken behind their dots and underscores."""
    return NAME.sub(lambda name: re.sub(r"([._/])(?=\w)", r"\1<wbr>", name[0]), cell[0])


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Pages without pictures do not load what draws them: it is 3 MB."""
    if 'class="mermaid"' not in output:
        script = rf'<script src="[^"]*{re.escape(PICTURES_URI)}"></script>'
        output = re.sub(script, "", output)
    return CELL.sub(breakable, output)
