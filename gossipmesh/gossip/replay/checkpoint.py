"""The whole state of a core as bytes, so that a replay may begin in the middle of its life.

What is written is the graph of the core's objects, as data: nothing in it is executed when it is read, and
it may name classes and code of the cores only. Timers wait with functions, which are named by where their
code stands; so writer and reader must be of one build.
Rules:
1. Nothing is written while a stream is open or long work is under way: neither can be put into bytes.
2. No key is written: our own are holes that the reader fills, those of links are derived anew.
3. Whatever this module does not know is refused, not guessed.
Paper: none. Deviation: none.
"""

import importlib
from collections import OrderedDict, deque
from enum import Enum
from functools import cache
from random import Random
from types import CellType, CodeType, FunctionType, MethodType
from typing import Any, Final

import msgspec

from gossipmesh.gossip.node import GossipNode
from gossipmesh.gossip.replay.recording import inputs_of
from gossipmesh.model.errors import MalformedInput
from gossipmesh.trust.keys import ExchangeKey, SigningKey, Verifier
from gossipmesh.trust.seal import Ciphers, Sealer

MEMBERS_MAX: Final = 100  # more would hold the loop for longer than 20 ms
_RINGS: Final = ("gossip", "model", "trust", "wire", "telemetry")
_SCALARS: Final = (type(None), bool, float, str, bytes)
_BUILTINS: Final[dict[str, type]] = {
    kind.__name__: kind for kind in (bool, int, float, str, bytes, tuple, list, dict)
}
_INT_MAX: Final = 2**63
_CIPHERS_MAX: Final = 64
_NAME_MAX: Final = 64

Node = tuple[Any, ...]


class Unwritable(Exception):
    """Something in the core cannot be put into bytes just now. Nobody's fault. State unchanged."""


def take_checkpoint(core: GossipNode) -> bytes | None:
    """Return the core's state, None while that is not possible or would take too long."""
    if core._streams._sessions or len(core._catalog) > MEMBERS_MAX:
        return None
    try:
        return msgspec.msgpack.encode(_Writer().write(core))
    except (Unwritable, TypeError, ValueError):  # a set without order, an empty cell
        return None


def open_checkpoint_untrusted(data: bytes, signing: SigningKey, exchange: ExchangeKey) -> GossipNode:
    """Return a core in that state, speaking by these keys.

    Raises:
        MalformedInput: not a checkpoint of this build. State unchanged.
    """
    try:
        nodes = msgspec.msgpack.decode(data, type=list[tuple[str, Any]])
        core = _Reader(nodes, {"signing": signing, "exchange": exchange}).read()
        if not isinstance(core, GossipNode):
            raise MalformedInput("a checkpoint of something else")
        _derive_links(core)
    except MalformedInput:
        raise
    except Exception as error:  # building from foreign data fails in as many ways as there are classes
        problem = f"not a checkpoint of this build: {type(error).__name__}: {error}"
        raise MalformedInput(problem[:300]) from None
    return core


def _derive_links(core: GossipNode) -> None:
    """Give every link the keys that the node's exchange key makes."""
    links_count = core._ctx.statistics.links
    for member in core._catalog:
        link = member.link
        if link is not None:
            key = member.credential.exchange_key
            fresh = core._courier._links.derive_untrusted(member.node_id, key, link.run)
            link._sealer, link._opener = fresh._sealer, fresh._opener
    core._ctx.statistics.links = links_count


class _Writer:
    """Walks the graph; a value is a scalar, or a list that holds the number of a node."""

    def __init__(self) -> None:
        self._numbers: dict[int, int] = {}
        self._objects: list[Any] = []  # held, so that no id is used twice

    def write(self, root: Any) -> list[Node]:
        self._value(root)
        nodes: list[Node] = []
        for value in self._objects:  # grows while we walk
            nodes.append(self._node(value))
        return nodes

    def _value(self, value: Any) -> Any:
        kind = type(value)
        if kind in _SCALARS or (kind is int and -_INT_MAX <= value < _INT_MAX):
            return value
        number = self._numbers.get(id(value))
        if number is None:
            number = self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        return [number]

    def _values(self, values: Any) -> list[Any]:
        return [self._value(value) for value in values]

    def _pairs(self, mapping: Any) -> list[Any]:
        return [[self._value(key), self._value(value)] for key, value in mapping.items()]

    def _node(self, value: Any) -> Node:
        kind: Any = type(value)
        if kind is dict:
            return "dict", self._pairs(value)
        if kind is tuple:
            return "tuple", self._values(value)
        if kind is list:
            return "list", self._values(value)
        if isinstance(value, msgspec.Struct):
            return "struct", [_name(kind), *self._values(getattr(value, f) for f in kind.__struct_fields__)]
        if isinstance(value, Enum):
            return "enum", [_name(kind), value.name]
        if isinstance(value, tuple):
            return "named", [_name(kind), *self._values(value)]
        if kind is OrderedDict:
            return "ordered", self._pairs(value)
        if kind is deque:
            return "deque", [value.maxlen, *self._values(value)]
        if kind in (set, frozenset):
            return kind.__name__, self._values(sorted(value))
        if kind is bytearray:
            return "bytearray", bytes(value)
        if kind is int:
            return "int", str(value)
        return self._rare_node(value, kind)

    def _rare_node(self, value: Any, kind: type) -> Node:
        if isinstance(value, SigningKey):
            return "hole", "signing"
        if isinstance(value, ExchangeKey):
            return "hole", "exchange"
        if kind is FunctionType:
            return "function", self._function(value)
        if kind is MethodType:
            return "method", [self._value(value.__self__), value.__name__]
        if kind is Random:
            return "random", self._value(value.getstate())
        if kind is type and value in _BUILTINS.values():
            return "builtin", value.__name__
        if isinstance(value, type):
            return "class", _name(value)
        if kind in (Sealer, Ciphers, Verifier):
            return "fresh", kind.__name__
        if isinstance(value, GossipNode):
            inputs = inputs_of(kind)  # a recorder stands before them
            kept = {name: part for name, part in vars(value).items() if name not in inputs}
            return "object", [_name(kind), self._pairs(kept)]
        return "object", [_name(kind), self._pairs(_attributes(value, kind))]

    def _function(self, function: FunctionType) -> list[Any]:
        cells = self._values(cell.cell_contents for cell in function.__closure__ or ())
        outer, _, _ = function.__qualname__.partition(".<locals>")
        try:
            place = _place_of(function.__code__, _code_at(function.__module__, outer))
        except MalformedInput as error:
            raise Unwritable(str(error)) from None
        if place is None or function.__kwdefaults__:
            raise Unwritable(function.__qualname__)
        return [function.__module__, outer, list(place), cells, self._value(function.__defaults__)]


class _Reader:
    """Builds the graph again: what can hold others first, empty; then what needs them; then fills."""

    def __init__(self, nodes: list[tuple[str, Any]], holes: dict[str, Any]) -> None:
        self._nodes = nodes
        self._holes = holes
        self._made: dict[int, Any] = {}

    def read(self) -> Any:
        for number, (tag, content) in enumerate(self._nodes):
            if tag in _EMPTY:
                self._made[number] = _EMPTY[tag](content)
        for number in range(len(self._nodes)):
            self._fill(number)
        return self._get(0)

    def _value(self, value: Any) -> Any:
        return self._get(value[0]) if type(value) is list else value

    def _values(self, values: list[Any]) -> list[Any]:
        return [self._value(value) for value in values]

    def _get(self, number: int) -> Any:
        if number not in self._made:
            tag, content = self._nodes[number]
            self._made[number] = self._make(tag, content)
        return self._made[number]

    def _make(self, tag: str, content: Any) -> Any:
        match tag:
            case "tuple":
                return tuple(self._values(content))
            case "frozenset":
                return frozenset(self._values(content))
            case "struct":
                kind = _class_of(content[0], msgspec.Struct)
                return kind(**dict(zip(kind.__struct_fields__, self._values(content[1:]), strict=True)))
            case "named":
                return _class_of(content[0], tuple)(*self._values(content[1:]))
            case "enum":
                return _class_of(content[0], Enum)[content[1]]
            case "int":
                return int(content)
            case "hole":
                return self._holes[content]
            case "class":
                return _class_of(content, object)
            case "builtin":
                return _BUILTINS[content]
            case "fresh":
                return _FRESH[content]()
            case "method":
                return _bound(self._value(content[0]), content[1])
            case "function":
                module, outer, place, cells, defaults = content
                return _function(module, outer, place, self._values(cells), self._value(defaults))
            case "random":
                made = Random()
                made.setstate(self._value(content))
                return made
            case _:
                raise MalformedInput(f"a checkpoint with a {tag[:40]!r}")

    def _fill(self, number: int) -> None:
        tag, content = self._nodes[number]
        made = self._get(number)
        if tag in ("dict", "ordered"):
            for key, value in content:
                made[self._value(key)] = self._value(value)
        elif tag == "list":
            made.extend(self._values(content))
        elif tag == "deque":
            made.extend(self._values(content[1:]))
        elif tag == "set":
            made.update(self._values(content))
        elif tag == "object":
            for name, value in content[1]:
                # A class keeps the names its instances once had, however long.
                if len(name) > _NAME_MAX or not name.isidentifier():
                    raise MalformedInput(f"a checkpoint with an attribute {name[:40]!r}")
                object.__setattr__(made, name, self._value(value))


def _blank(content: Any) -> Any:
    kind = _class_of(content[0], object)
    if not _is_plain(kind):
        raise MalformedInput(f"a checkpoint with an object of {content[0]}"[:200])
    return object.__new__(kind)


_EMPTY: Final[dict[str, Any]] = {
    "dict": lambda _: {},
    "ordered": lambda _: OrderedDict(),
    "list": lambda _: [],
    "set": lambda _: set(),
    "deque": lambda content: deque(maxlen=content[0]),
    "bytearray": lambda content: bytearray(memoryview(content)),
    "object": _blank,
}
_FRESH: Final[dict[str, Any]] = {
    "Sealer": lambda: Sealer(bytes(32), Ciphers(1)),
    "Ciphers": lambda: Ciphers(_CIPHERS_MAX),
    "Verifier": Verifier,
}


def _is_plain(kind: Any) -> bool:
    """Tell whether an instance is its attributes and nothing else."""
    return kind.__new__ is object.__new__


def _attributes(value: Any, kind: type) -> dict[str, Any]:
    """Return a plain object's attributes, of its dictionary and its slots."""
    if kind.__module__.partition(".")[0] != "gossipmesh" or not _is_plain(kind):
        raise Unwritable(f"{kind.__module__}.{kind.__qualname__}")
    found = dict(getattr(value, "__dict__", {}))
    for name in _slots_of(kind):
        if hasattr(value, name):
            found[name] = getattr(value, name)
    return found


@cache
def _slots_of(kind: Any) -> tuple[str, ...]:
    return tuple(name for base in kind.__mro__ for name in getattr(base, "__slots__", ()))


@cache
def _name(kind: Any) -> str:
    module, _, rest = kind.__module__.partition(".")
    if module != "gossipmesh" or rest.partition(".")[0] not in _RINGS or "<" in kind.__qualname__:
        raise Unwritable(f"{kind.__module__}.{kind.__qualname__}")
    return f"{kind.__module__}:{kind.__qualname__}"


def _module(name: str) -> Any:
    package, _, rest = name.partition(".")
    if package != "gossipmesh" or rest.partition(".")[0] not in _RINGS:
        raise MalformedInput(f"a checkpoint that names the module {name}"[:200])
    return importlib.import_module(name)


def _class_of(name: str, base: type) -> Any:
    module_name, _, path = name.partition(":")
    found: Any = _module(module_name)
    for part in path.split("."):
        found = vars(found).get(part)
    if not isinstance(found, type) or not issubclass(found, base) or found.__module__ != module_name:
        raise MalformedInput(f"a checkpoint that names {name}"[:200])
    return found


# Functions, by where their code stands


def _code_at(module_name: str, path: str) -> CodeType:
    """Return the code of a function or method of a module of the cores."""
    found: Any = _module(module_name)
    for part in path.split("."):
        found = vars(found).get(part)
        found = getattr(found, "fget", None) or getattr(found, "__func__", None) or found
    if not isinstance(found, FunctionType):
        raise MalformedInput(f"a checkpoint that names {module_name}.{path}"[:200])
    return found.__code__


def _place_of(wanted: CodeType, outer: CodeType) -> tuple[int, ...] | None:
    """Return the way through constants from a function's code to one written within it; () for itself."""
    if outer is wanted:
        return ()
    for index, constant in enumerate(outer.co_consts):
        if isinstance(constant, CodeType):
            place = _place_of(wanted, constant)
            if place is not None:
                return (index, *place)
    return None


def _function(module_name: str, path: str, place: list[int], cells: list[Any], defaults: Any) -> FunctionType:
    code = _code_at(module_name, path)
    for index in place:
        code = code.co_consts[index]
        if not isinstance(code, CodeType):
            raise MalformedInput("a checkpoint that names no function")
    closure = tuple(CellType(value) for value in cells)
    return FunctionType(code, vars(_module(module_name)), code.co_name, defaults, closure)


def _bound(owner: Any, name: str) -> MethodType:
    _module(type(owner).__module__)
    function = getattr(type(owner), name, None)
    if not isinstance(function, FunctionType):
        raise MalformedInput(f"a checkpoint that names no method: {name}"[:200])
    return MethodType(function, owner)
