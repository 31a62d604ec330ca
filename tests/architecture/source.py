"""Every Python file of the project, read and parsed once, for whatever looks at style or imports."""

import ast
import functools
import gc
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDERS = ("gossipmesh", "tests", "bench", "chaos", "tools")

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True)
class Source:
    """One file: `path` relative to the project's root, with slashes."""

    path: str
    text: str
    tree: ast.Module

    @classmethod
    def of(cls, path: str, text: str) -> "Source":
        return cls(path, text, ast.parse(text))

    @property
    def parts(self) -> tuple[str, ...]:
        return PurePosixPath(self.path).parts

    @property
    def is_package(self) -> bool:
        """Tell whether this is shipped code; the rest is tests, benchmarks and tools."""
        return self.parts[0] == "gossipmesh"

    @property
    def module(self) -> str:
        """Return the dotted name; a package's is that of its folder."""
        parts = PurePosixPath(self.path).with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    def functions(self) -> Iterator[Function]:
        for node in ast.walk(self.tree):
            if isinstance(node, Function):
                yield node

    def words(self) -> Iterator[tuple[int, str]]:
        """Yield every name this file gives or uses, with its line; the file's own name is in line 1."""
        yield 1, PurePosixPath(self.path).stem
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Name):
                yield node.lineno, node.id
            elif isinstance(node, ast.arg):
                yield node.lineno, node.arg
            elif isinstance(node, ast.Attribute):
                yield node.lineno, node.attr
            elif isinstance(node, ast.keyword) and node.arg:
                yield node.lineno, node.arg
            elif isinstance(node, Definition):
                yield node.lineno, node.name


@functools.cache
def sources() -> tuple[Source, ...]:
    """Return all files, in order of their paths.

    Millions of objects that stay until the process ends: Python's collector would walk them again and again
    while they are made, four fifths of the time it takes, and ever after.
    """
    paths = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))
    gc.collect()
    gc.disable()
    try:
        return tuple(Source.of(path.relative_to(ROOT).as_posix(), path.read_text()) for path in paths)
    finally:
        gc.freeze()
        gc.enable()
