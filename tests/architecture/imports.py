"""Who imports whom, and who reaches into whose inside, from the text of the files."""

import ast
from collections.abc import Iterator, Sequence
from typing import Final

from tests.architecture.source import Definition, Source

# Public in spite of the underscore: what NamedTuple keeps apart from its fields, and a function of `os`.
PUBLIC: Final = frozenset(("_replace", "_make", "_asdict", "_fields", "_exit"))
KEEPING: Final = ("gossipmesh", "bench", "chaos")  # tests may look inside what they test


def graph_of(files: Sequence[Source]) -> dict[str, list[str]]:
    """Return each module of the package and which others it imports, anywhere in its text, sorted."""
    modules = {source.module for source in files if source.is_package}
    return {
        source.module: sorted(set(_imported(source, modules)) - {source.module})
        for source in files
        if source.is_package
    }


def _imported(source: Source, modules: set[str]) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in modules)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                inner = f"{node.module}.{name.name}"
                if inner in modules:
                    yield inner
                elif node.module in modules:
                    yield node.module


def circle_in(graph: dict[str, list[str]]) -> list[str]:
    """Return the modules of one circle, each importing the next and the last the first; empty for none."""
    done: set[str] = set()
    for start in sorted(graph):
        path: list[str] = []
        waiting = [iter([start])]
        while waiting:
            module = next(waiting[-1], None)
            if module is None:
                waiting.pop()
                if path:
                    done.add(path.pop())
            elif module in path:
                return path[path.index(module) :]
            elif module not in done:
                path.append(module)
                waiting.append(iter(graph[module]))
    return []


def foreign_insides(files: Sequence[Source]) -> list[str]:
    """Return where a name that begins with an underscore is used by others than who gave it.

    It is its file's own. The gossip core is one ring of many files that may know one another; nobody outside
    of it may know more than what it shows.
    """
    given = {source.path: set(_given(source)) for source in files}
    core: set[str] = set().union(*(given[source.path] for source in files if _is_core(source)))
    found = []
    for source in files:
        if source.parts[0] in KEEPING:
            own = core if _is_core(source) else given[source.path]
            for line, name, shown in sorted(_used(source)):
                if name not in own and name not in PUBLIC:
                    found.append(f"{source.path}:{line}: {shown}")
    return found


def _is_core(source: Source) -> bool:
    return source.parts[:2] == ("gossipmesh", "gossip")


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def _given(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, Definition):
            yield node.name
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and _is_own(node):
            yield node.attr
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _is_own(node: ast.Attribute) -> bool:
    return isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")


def _used(source: Source) -> Iterator[tuple[int, str, str]]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Attribute) and _is_private(node.attr) and not _is_own(node):
            yield node.lineno, node.attr, ast.unparse(node)
        elif isinstance(node, ast.ImportFrom):
            for name in node.names:
                if _is_private(name.name):
                    yield node.lineno, "", f"from {node.module} import {name.name}"
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("getattr", "setattr", "delattr"):
            name = node.args[1] if len(node.args) > 1 else None
            if isinstance(name, ast.Constant) and isinstance(name.value, str) and _is_private(name.value):
                yield node.lineno, name.value, ast.unparse(node)
