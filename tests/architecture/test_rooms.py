"""The rooms of the gossip core stay apart: what was reached is a bound here, and bounds only ever fall."""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

CORE: Final = Path(__file__).resolve().parent.parent.parent / "gossipmesh" / "gossip"
MODULES: Final = {path: ast.parse(path.read_text()) for path in sorted(CORE.rglob("*.py"))}

# Levels of import inside each room, and beside them at the top. None may be deeper than six.
LEVELS: Final = {
    "base": 2,
    "membership": 5,
    "sessions": 4,
    "dissemination": 3,
    "failure": 6,
    "repair": 3,
    "replay": 4,
    "": 4,
}
LEVELS_MAX: Final = 6
COLLABORATORS_MAX: Final = 6
# Who is given more, and how many: each is a class that still does too much.
CROWDED: Final[dict[str, int]] = {}
# Functions that are stored on an object after it was made, or left there to be replaced.
STORED: Final[set[str]] = set()
# Constructors that take functions to call: the name of the class and how many.
CALLBACKS: Final = {"TappedSigningKey": 1}
# Who knows how services are signed; everybody else is told of endpoints, which are decoded once.
SIGNED_SERVICES: Final = {
    "membership/catalog.py",
    "membership/endpoints.py",
    "membership/own.py",
    "membership/soundness.py",
    "replay/packing.py",
}
_VALUES: Final = ("Struct", "NamedTuple", "Enum", "StrEnum", "IntEnum", "Exception")


def room_of(path: Path) -> str:
    parts = path.relative_to(CORE).parts
    return parts[0] if len(parts) > 1 else ""


def name_of(path: Path) -> str:
    return str(path.relative_to(CORE))


def classes() -> Iterator[ast.ClassDef]:
    for tree in MODULES.values():
        yield from (node for node in tree.body if isinstance(node, ast.ClassDef))


def is_value(node: ast.ClassDef) -> bool:
    return any(ast.unparse(base).split(".")[-1] in _VALUES for base in node.bases)


def constructor_of(node: ast.ClassDef) -> ast.FunctionDef | None:
    inits = (one for one in node.body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
    return next(inits, None)


def parameters_of(init: ast.FunctionDef) -> list[ast.arg]:
    return [one for one in init.args.args + init.args.kwonlyargs if one.annotation is not None]


def levels_of(room: str) -> int:
    """Return how many modules of a room stand on one another."""
    prefix = f"gossipmesh.gossip.{room}." if room else "gossipmesh.gossip."
    imports = {
        path.stem: {
            node.module.removeprefix(prefix)
            for node in ast.walk(tree)
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(prefix)
        }
        for path, tree in MODULES.items()
        if room_of(path) == room and path.stem != "__init__"
    }
    known: dict[str, int] = {}

    def level(module: str) -> int:
        if module not in known:
            known[module] = 1 + max((level(one) for one in imports[module] if one in imports), default=0)
        return known[module]

    return max(map(level, imports))


def test_rooms_are_shallow() -> None:
    assert {room_of(path) for path in MODULES} == set(LEVELS)
    assert {room: levels_of(room) for room in LEVELS} == LEVELS
    assert max(LEVELS.values()) <= LEVELS_MAX


def test_no_function_is_stored_on_an_object_that_was_made_before() -> None:
    """Who needs another is given it when it is made; what happened is returned to whoever asked."""
    methods = {
        function.name
        for node in classes()
        for function in node.body
        if isinstance(function, ast.FunctionDef) and not function.decorator_list
    }
    stored: set[str] = set()
    for path, tree in MODULES.items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Assign | ast.AnnAssign) or node.value is None:
                continue
            value = node.value
            is_method = isinstance(value, ast.Attribute) and value.attr in methods
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                if not isinstance(target, ast.Attribute):
                    continue
                own = isinstance(target.value, ast.Name) and target.value.id == "self"
                if isinstance(value, ast.Lambda) or (is_method and not own):
                    stored.add(f"{name_of(path)}: {ast.unparse(target)}")
            assert "setattr(" not in ast.unparse(value) or room_of(path) == "replay", name_of(path)
    assert stored == STORED


def test_constructors_take_few_collaborators() -> None:
    parts = {node.name for node in classes() if not is_value(node)}
    crowded: dict[str, int] = {}
    for node in classes():
        init = constructor_of(node)
        if init is None or is_value(node):
            continue
        given = [
            ast.unparse(one.annotation) for one in init.args.args + init.args.kwonlyargs if one.annotation
        ]
        count = sum(1 for kind in given if kind in parts or kind.startswith("Callable["))
        if count > COLLABORATORS_MAX:
            crowded[node.name] = count
    assert crowded == CROWDED


def test_constructors_take_no_functions_to_call() -> None:
    callbacks: dict[str, int] = {}
    for node in classes():
        init = constructor_of(node)
        if init is None:
            continue
        count = sum("Callable[" in ast.unparse(one.annotation) for one in parameters_of(init))
        if count:
            callbacks[node.name] = count
    assert callbacks == CALLBACKS


def test_services_are_decoded_where_they_are_merged_and_nowhere_else() -> None:
    """Beyond the core nobody names the record at all, but for `trust`, which opens it."""
    naming = {name_of(path) for path in MODULES if "ServiceSet" in path.read_text()}
    assert naming == SIGNED_SERVICES
    package = CORE.parent
    rings = ("agent", "cli", "dataplane", "net", "telemetry", "traffic", "wire")
    others = [path for ring in rings for path in (package / ring).rglob("*.py")]
    assert not [str(path) for path in others if "ServiceSet" in path.read_text()]
    decoding = {name_of(path) for path in MODULES if "entries_of(" in path.read_text()}
    assert decoding == {"membership/endpoints.py", "replay/checkpoint.py"}
