# SPDX-License-Identifier: Apache-2.0
"""The YAML file: keys and values with their lines, as text.

PyYAML's composer gives the node graph; nothing is constructed, so no tag can run code.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from otelauto.config.interpolate import interpolate, refers_to_files
from otelauto.config.kinds import Pairs, Raw
from otelauto.config.problems import Findings, InvalidConfig, Origin, Problem, Source, nearest
from otelauto.config.setting import Declaration

MAX_BYTES = 1 << 20

_NULL = frozenset({"", "~", "null", "Null", "NULL"})
_LIST_REMEDY = "Give each item as one plain value."
_ALL_KEYS = "docs/config.md lists all keys."

Tree = dict[str, Any]  # key -> Declaration or Tree


@dataclass(frozen=True, slots=True)
class Given:
    """A setting as the file gives it. ``item_origins`` are those of a list's items."""

    declaration: Declaration
    raw: Raw
    origin: Origin
    item_origins: tuple[Origin, ...] = ()
    reread: Callable[[], Raw] | None = None  # where ``raw`` refers to files; raises ValueError


@dataclass(slots=True)
class FileContent:
    """What a configuration file says: settings, and the sections that are there."""

    given: list[Given]
    sections: set[str]


def key_tree(declared: tuple[Declaration, ...]) -> Tree:
    """Sections and keys as nested dictionaries; an alias leads to the declaration it stands for."""
    tree: Tree = {}
    for declaration in declared:
        level = tree
        for name in declaration.path[:-1]:
            level = level.setdefault(name, {})
        for name in (declaration.path[-1], *declaration.setting.aliases):
            level[name] = declaration
    return tree


def read_file(
    path: Path, declared: tuple[Declaration, ...], environ: Mapping[str, str], findings: Findings
) -> FileContent:
    """Read ``path``; keys and values that are wrong become problems in ``findings``.

    Raises :class:`InvalidConfig` when nothing can be read at all.
    """
    text = _text(path)
    root = _compose(path, text)
    reader = _Reader(path, environ, findings, key_tree(declared))
    if root is None or _is_null(root):
        return FileContent([], set())
    reader.mapping(root, reader.tree, ())
    return FileContent(reader.given, reader.sections)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unreadable(path, error) from None
    if len(data) > MAX_BYTES:
        sentence = f"the file is larger than {MAX_BYTES} bytes."
        raise InvalidConfig([Problem(str(path), sentence, "Name a configuration file.")])
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(f"{path}:{line}", "the file is not UTF-8 text.", "Save it as UTF-8.")
        raise InvalidConfig([problem]) from None


def _unreadable(path: Path, error: OSError) -> InvalidConfig:
    if isinstance(error, FileNotFoundError):
        remedy = "Check the path given with -config."
    elif isinstance(error, PermissionError):
        remedy = f"Make it readable for user id {os.geteuid()}."
    else:
        remedy = "Name a readable file."
    reason = (error.strerror or "unknown error").lower()
    return InvalidConfig([Problem(str(path), f"the file cannot be read: {reason}.", remedy)])


def _compose(path: Path, text: str) -> yaml.Node | None:
    remedy = "Correct the YAML there; indentation with blanks, one blank after each colon."
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        context = f" {error.context}," if error.context else ""
        problem = Problem(where, f"not valid YAML:{context} {error.problem}.", remedy)
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, error.position - before.rfind("\n")
        sentence = (
            f"not valid YAML: the character U+{ord(text[error.position]):04X} is not allowed."
        )
        problem = Problem(f"{path}:{line}:{column}", sentence, "Remove it.")
    except RecursionError:
        problem = Problem(str(path), "the YAML is nested too deeply.", "Two or three levels do.")
    else:
        return node
    raise InvalidConfig([problem])


def _is_null(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None and node.value in _NULL


class _Reader:
    """Walks the nodes beside the tree of known keys."""

    def __init__(
        self, path: Path, environ: Mapping[str, str], findings: Findings, tree: Tree
    ) -> None:
        self.path = path
        self.environ = environ
        self.findings = findings
        self.tree = tree
        self.given: list[Given] = []
        self.sections: set[str] = set()
        self._seen: dict[tuple[str, ...], tuple[str, int]] = {}

    def where(self, node: yaml.Node) -> str:
        return f"{self.path}:{node.start_mark.line + 1}"

    def mapping(self, node: yaml.Node, level: Tree, prefix: tuple[str, ...]) -> None:
        """Read a section. Recursion is bounded by the depth of the tree of known keys."""
        name = ".".join(prefix)
        if not isinstance(node, yaml.MappingNode):
            what = f'"{name}"' if name else "the file"
            example = f"{name or 'ebpf'}:\n       key: value"
            self.findings.problem(
                self.where(node), f"{what} must have keys and values.", f"Write\n     {example}"
            )
            return
        if prefix:
            self.sections.add(name)
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else None
            if key is None or key not in level:
                self._unknown(key, key_node, level, prefix)
            elif isinstance(entry := level[key], Declaration):
                self._setting(entry, key, key_node, value_node)
            elif self._first(key_node, (*prefix, key), key) and not _is_null(value_node):
                self.mapping(value_node, entry, (*prefix, key))

    def _unknown(
        self, key: str | None, node: yaml.Node, level: Tree, prefix: tuple[str, ...]
    ) -> None:
        where = self.where(node)
        if key is None:
            self.findings.problem(where, "a key must be a plain word.", _ALL_KEYS)
        elif key == "<<":
            remedy = "Repeat the keys in each section."
            self.findings.problem(where, "merge keys (<<) are not read.", remedy)
        else:
            meant = self._meant(key, level, prefix)
            known = f"Known here: {', '.join(sorted(level))}."
            remedy = f'Did you mean "{meant}"?' if meant else known
            full = ".".join((*prefix, key))
            self.findings.problem(where, f'unknown key "{full}".', remedy)

    def _meant(self, key: str, level: Tree, prefix: tuple[str, ...]) -> str | None:
        """The key that was meant: the same elsewhere, a near one here, a near one elsewhere."""
        paths = {path[-1]: ".".join(path) for path in reversed(list(_paths(self.tree)))}
        if key in paths:
            return paths[key]
        if (close := nearest(key, level)) is not None:
            return ".".join((*prefix, close))
        found = nearest(key, paths)
        return paths[found] if found is not None else None

    def _first(self, node: yaml.Node, path: tuple[str, ...], key: str) -> bool:
        """True if ``path`` was not given before; else a problem."""
        if path not in self._seen:
            self._seen[path] = (key, node.start_mark.line + 1)
            return True
        name, line = self._seen[path]
        if name == key:
            sentence = f'"{".".join(path)}" is given twice, first on line {line}.'
            remedy = "Keep one of them."
        else:
            sentence = f'"{key}" and "{name}" (line {line}) are the same setting.'
            remedy = f'Keep "{path[-1]}" and remove the other.'
        self.findings.problem(self.where(node), sentence, remedy)
        return False

    def _setting(
        self, declaration: Declaration, key: str, key_node: yaml.Node, node: yaml.Node
    ) -> None:
        if not self._first(key_node, declaration.path, key) or _is_null(node):
            return
        if isinstance(node, yaml.ScalarNode):
            self._scalar(declaration, node)
        elif isinstance(node, yaml.SequenceNode):
            self._sequence(declaration, node)
        elif isinstance(node, yaml.MappingNode):
            self._pairs(declaration, node)

    def _scalar(self, declaration: Declaration, node: yaml.ScalarNode) -> None:
        text = self._resolve(declaration, node)
        if text:
            again = partial(interpolate, node.value, self.environ)
            reread = again if refers_to_files(node.value) else None
            self.given.append(Given(declaration, text, self._origin(node), reread=reread))

    def _sequence(self, declaration: Declaration, node: yaml.SequenceNode) -> None:
        texts: list[str] = []
        for item in node.value:
            if not isinstance(item, yaml.ScalarNode):
                sentence = f'an item of "{declaration.key}" is not a plain value.'
                self.findings.problem(self.where(item), sentence, _LIST_REMEDY)
                return
            if (text := self._resolve(declaration, item)) is None:
                return
            texts.append(text)
        if texts:
            origins = tuple(self._origin(item) for item in node.value)
            self.given.append(Given(declaration, texts, self._origin(node), origins))

    def _pairs(self, declaration: Declaration, node: yaml.MappingNode) -> None:
        pairs: dict[str, str] = {}
        origins: list[Origin] = []
        for key, value in node.value:
            if not (isinstance(key, yaml.ScalarNode) and isinstance(value, yaml.ScalarNode)):
                sentence = f'an entry of "{declaration.key}" is not a plain value.'
                self.findings.problem(self.where(key), sentence, _LIST_REMEDY)
                return
            if key.value in pairs:
                sentence = f'"{declaration.key}.{key.value}" is given twice.'
                self.findings.problem(self.where(key), sentence, "Keep one of them.")
                return
            if (text := self._resolve(declaration, value)) is None:
                return
            pairs[key.value] = text
            origins.append(self._origin(value))
        if pairs:
            origin = Origin(Source.FILE, self.where(node), any(item.literal for item in origins))
            texts = [(key.value, value.value) for key, value in node.value]
            reread = partial(_pairs_again, texts, self.environ)
            given = Given(declaration, list(pairs.items()), origin, tuple(origins))
            if any(refers_to_files(text) for _, text in texts):
                given = replace(given, reread=reread)
            self.given.append(given)

    def _resolve(self, declaration: Declaration, node: yaml.ScalarNode) -> str | None:
        """The text of a scalar with its references replaced, or ``None`` after a problem."""
        if _is_null(node):
            return ""
        try:
            return interpolate(node.value, self.environ)
        except ValueError as error:
            sentence = f'a reference in "{declaration.key}" cannot be resolved.'
            self.findings.problem(self.where(node), sentence, str(error))
            return None

    def _origin(self, node: yaml.Node) -> Origin:
        literal = not isinstance(node, yaml.ScalarNode) or "${" not in node.value
        return Origin(Source.FILE, self.where(node), literal)


def _pairs_again(texts: Pairs, environ: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, interpolate(text, environ)) for name, text in texts]


def _paths(tree: Tree, prefix: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for key, entry in tree.items():
        yield (*prefix, key)
        if isinstance(entry, dict):
            yield from _paths(entry, (*prefix, key))
