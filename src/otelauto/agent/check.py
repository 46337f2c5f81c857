# SPDX-License-Identifier: Apache-2.0
"""Files to a checked configuration: names, types, references, rules. All that is wrong is told."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from otelauto.agent.components import ABSENT, COMPONENTS
from otelauto.agent.references import Reference, cycles, references
from otelauto.agent.river import ast
from otelauto.agent.river.diagnostics import Diagnostic, Position, RiverError, Source
from otelauto.agent.river.evaluate import Evaluator
from otelauto.agent.river.lexer import Kind
from otelauto.agent.river.parser import Parser
from otelauto.agent.river.stdlib import library
from otelauto.agent.river.values import Unknown, Value, ValueFault
from otelauto.agent.schema import Argument, Block, Component, Decoded, decode
from otelauto.config.problems import nearest


@dataclass(frozen=True, slots=True)
class Node:
    """A component of the configuration. ``needs`` are the ids of those that it refers to."""

    source: Source
    block: ast.Block = field(repr=False)  # it may hold a secret
    schema: Component = field(repr=False)
    content: Decoded
    needs: tuple[str, ...]


@dataclass(slots=True)
class _Found:
    """A component that was named; its content is not yet looked at."""

    source: Source
    block: ast.Block
    schema: Component


@dataclass(frozen=True, slots=True)
class Configuration:
    """What is right: the components by id. ``warnings`` are of what is allowed and unwise."""

    nodes: dict[str, Node]
    warnings: tuple[Diagnostic, ...]


def check(sources: Sequence[Source], environ: Mapping[str, str] = os.environ) -> Configuration:
    """The configuration that all ``sources`` are together. What only a running component knows is
    an ``Unknown``. Raises :class:`RiverError` with everything that is wrong.
    """
    checker = _Checker(environ)
    nodes = checker.nodes(sources)
    if checker.problems:
        raise RiverError(checker.problems)
    return Configuration(nodes, tuple(checker.warnings))


def evaluated(
    node: Node, exports: Mapping[str, Value], environ: Mapping[str, str] = os.environ
) -> Decoded:
    """The content of the block with the ``exports`` of components that run, by their ids.

    Raises :class:`RiverError`: only now a value is known that is wrong.
    """
    checker = _Checker(environ)
    content = checker.content(node, exports)
    if checker.problems:
        raise RiverError(checker.problems)
    return content


class _Checker:
    def __init__(self, environ: Mapping[str, str]) -> None:
        self.problems: list[Diagnostic] = []
        self.warnings: list[Diagnostic] = []
        self._library = library(environ)

    def _problem(self, source: Source, where: Position, message: str, hint: str = "") -> None:
        self.problems.append(Diagnostic(source, where, message, hint))

    def nodes(self, sources: Sequence[Source]) -> dict[str, Node]:
        """The components by id; only those are of use if there are no ``problems``."""
        found: dict[str, _Found] = {}
        bodies = [(source, self._parsed(source)) for source in sources]
        if self.problems:
            return {}  # references to what could not be read would all be wrong
        for source, body in bodies:
            for statement in body:
                self._top(source, statement, found)
        scope = self._scope({name: _exports(each) for name, each in found.items()})
        edges: dict[str, list[Reference]] = {}
        nodes = {}
        for name, each in found.items():
            edges[name] = list(self._references(each, found))
            content = self._body(each.source, each.block, each.schema, scope)
            needs = tuple(dict.fromkeys(reference.target for reference in edges[name]))
            nodes[name] = Node(each.source, each.block, each.schema, content, needs)
        for cycle in cycles(edges):
            way = " -> ".join([*(name for name, _ in cycle), cycle[0][0]])
            name, reference = cycle[0]
            message = f"components need each other: {way}"
            self._problem(found[name].source, reference.position, message)
        return nodes

    def content(self, node: Node, exports: Mapping[str, Value]) -> Decoded:
        """The content of one component; of use if there are no ``problems``."""
        return self._body(node.source, node.block, node.schema, self._scope(exports))

    def _parsed(self, source: Source) -> tuple[ast.Statement, ...]:
        parser = Parser(source)
        body = parser.file()
        self.problems += parser.errors
        return body

    def _top(self, source: Source, statement: ast.Statement, found: dict[str, _Found]) -> None:
        """A statement that stands in no block."""
        if isinstance(statement, ast.Attribute):
            name = statement.name.text
            self._problem(source, statement.position, f'unrecognized attribute name "{name}"',
                          "Only blocks can stand outside of blocks.")  # fmt: skip
            return
        schema = COMPONENTS.get(statement.name)
        where = statement.position
        if schema is None:
            self._unknown_component(source, statement)
        elif schema.labelled and not statement.label:
            message = f'component "{schema.name}" must have a label'
            self._problem(source, where, message, f'Write: {schema.name} "default" {{ ... }}')
        elif not schema.labelled and statement.label:
            self._problem(
                source, where, f'block "{schema.name}" does not support specifying labels'
            )
        elif statement.id in found:
            other = found[statement.id]
            line = f"{other.source.name}:{other.block.position.line}:{other.block.position.column}"
            self._problem(source, where, f"block {statement.id} already declared at {line}")
        else:
            found[statement.id] = _Found(source, statement, schema)

    def _unknown_component(self, source: Source, block: ast.Block) -> None:
        name = block.name
        if name in ABSENT:
            message = f'block "{name}" is not supported by this agent'
            hint = ""
        else:
            message = f'cannot find the definition of component name "{name}"'
            hint = _hint(name, COMPONENTS)
        self._problem(source, block.position, message, hint)

    def _scope(self, exports: Mapping[str, Value]) -> dict[str, Value]:
        """The library, and the exports of all components under their ids."""
        scope = dict(self._library)
        for name, exported in exports.items():
            *steps, last = name.split(".")
            place = scope
            for step in steps:
                place = place.setdefault(step, {})
            place[last] = exported
        return scope

    def _references(self, each: _Found, found: Mapping[str, _Found]) -> Iterator[Reference]:
        for reference in references(each.block.body, found, self._library):
            if reference.target in found:
                yield reference
                if reference.target == each.block.id:
                    message = f"component {reference.target} refers to itself"
                    self._problem(each.source, reference.position, message)
            else:
                message = f'component "{reference.target}" does not exist or is out of scope'
                self._problem(
                    each.source,
                    reference.position,
                    message,
                    _hint(reference.target, _referable(found)),
                )

    def _body(
        self, source: Source, block: ast.Block, schema: Block, scope: Mapping[str, Value]
    ) -> Decoded:
        content = Decoded(schema)
        seen: set[str] = set()
        before = len(self.problems)
        for statement in block.body:
            if isinstance(statement, ast.Attribute):
                self._attribute(source, statement, content, scope, seen)
            else:
                self._inner(source, statement, content, scope, seen)
        for argument in schema.arguments:
            if argument.required and argument.name not in seen:
                message = f'missing required attribute "{argument.name}"'
                self._problem(source, block.position, message)
        for inner in schema.blocks:
            if inner.required and inner.name not in seen:
                self._problem(source, block.position, f'missing required block "{inner.name}"')
        if len(self.problems) == before:
            for rule in schema.rules:
                if message := rule(content):
                    self._problem(source, block.position, message)
        return content

    def _attribute(
        self, source: Source, statement: ast.Attribute, content: Decoded,
        scope: Mapping[str, Value], seen: set[str],
    ) -> None:  # fmt: skip
        name, where, schema = statement.name.text, statement.position, content.schema
        argument = schema.argument(name)
        if argument is None:
            if schema.block(name):
                message = f'"{name}" must be a block, but is used as an attribute'
                self._problem(source, where, message, f"Write: {name} {{ ... }}")
            else:
                message = f'unrecognized attribute name "{name}"'
                self._problem(source, where, message, _hint_in(name, schema))
        elif name in seen:
            self._problem(source, where, f'attribute "{name}" may only be provided once')
        else:
            content.arguments[name] = self._value(source, statement.value, argument, scope)
            if argument.type == "secret" and _is_text(statement.value):
                message = f'"{name}" is a secret that stands in the file'
                hint = f'{name} = env("NAME"), or a local.file with is_secret = true'
                self.warnings.append(Diagnostic(source, where, message, hint))
        seen.add(name)

    def _value(
        self, source: Source, expr: ast.Expr, argument: Argument, scope: Mapping[str, Value]
    ) -> Value:
        evaluator = Evaluator(source, scope, covered="secret" in argument.type)
        known = len(self.problems)
        try:
            value = evaluator(expr)
            try:
                return decode(value, argument)
            except ValueFault as fault:
                evaluator.blame(expr, fault)
        except RiverError as error:
            reported = {(d.source, d.position.line) for d in self.problems[:known]}
            # A reference to nothing is reported once, as what it is.
            self.problems += [
                d for d in error.diagnostics if (d.source, d.position.line) not in reported
            ]
            return Unknown()

    def _inner(
        self, source: Source, block: ast.Block, content: Decoded,
        scope: Mapping[str, Value], seen: set[str],
    ) -> None:  # fmt: skip
        name, where = block.name, block.position
        schema = content.schema.block(name)
        if schema is None:
            if content.schema.argument(name):
                message = f'"{name}" must be an attribute, but is used as a block'
                self._problem(source, where, message, f"Write: {name} = ...")
            else:
                message = f'unrecognized block name "{name}"'
                self._problem(source, where, message, _hint_in(name, content.schema))
        elif name in seen and not schema.repeated:
            self._problem(source, where, f'block "{name}" may only be specified once')
        else:
            if block.label:
                message = f'block "{name}" does not support specifying labels'
                self._problem(source, where, message)
            found = self._body(source, block, schema, scope)
            content.blocks.setdefault(name, []).append(found)
        seen.add(name)


def _exports(found: _Found) -> Value:
    """What others see of a component: values that are known once it runs."""
    exports: dict[str, Value] = {name: Unknown(_kind(kind)) for name, kind in found.schema.exports}
    if found.schema.name == "local.file":
        for statement in found.block.body:
            if isinstance(statement, ast.Attribute) and statement.name.text == "is_secret":
                plain = isinstance(statement.value, ast.Literal) and statement.value.text == "false"
                exports["content"] = Unknown("string" if plain else "secret")
    return exports


def _is_text(expr: ast.Expr) -> bool:
    """Whether ``expr`` is a string that stands in the file, and not an empty one."""
    while isinstance(expr, ast.Paren):
        expr = expr.inner
    return isinstance(expr, ast.Literal) and expr.kind is Kind.STRING and len(expr.text) > 2


def _kind(kind: str) -> str:
    """The type of a value by the type of an argument."""
    return {"list": "array", "map": "object"}.get(kind.partition("(")[0], kind)


def _referable(found: Mapping[str, _Found]) -> list[str]:
    return [name for name, each in found.items() if each.schema.exports]


def _hint(word: str, known: Iterable[str]) -> str:
    names = sorted(known)
    meant = nearest(word, names)
    if meant:
        return f'Did you mean "{meant}"?'
    return f"Known are {', '.join(names)}." if names else ""


def _hint_in(word: str, schema: Block) -> str:
    """The nearest argument or block of ``schema``, or all of them."""
    names = [argument.name for argument in schema.arguments]
    names += [block.name for block in schema.blocks]
    return _hint(word, names) or "It takes nothing."
