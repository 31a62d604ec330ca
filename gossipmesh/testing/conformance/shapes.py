"""Whether what an engine sends has the shape its schema says: the few words of JSON Schema that they use.

A string with `contentEncoding` is a byte string; fields that no schema names are passed over, as the
protocol has it. Ends at shapes; what a frame means is the vectors'.
"""

from typing import Any, Final

_PLAIN: Final[dict[str, type | tuple[type, ...]]] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None),
    "array": (list, tuple), "object": dict,
}  # fmt: skip


class Shapes:
    """Named schemas that refer to one another."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._named: dict[str, Any] = document["$defs"]

    def fault(self, name: str, value: object) -> str:
        """Return what of `value` is not as the schema called `name` says, empty when all is."""
        return self._fault(self._named[name], value, name)

    def _fault(self, schema: dict[str, Any], value: Any, at: str) -> str:
        if "$ref" in schema:
            return self._fault(self._named[schema["$ref"].rpartition("/")[2]], value, at)
        if "anyOf" in schema:
            faults = [self._fault(one, value, at) for one in schema["anyOf"]]
            return "" if "" in faults else faults[0]
        if "enum" in schema and value not in schema["enum"]:
            return f"{at} is {value!r}, which is none of {schema['enum']}"
        kind = schema.get("type")
        if kind is None:
            return ""
        expected = bytes if "contentEncoding" in schema else _PLAIN[kind]
        if not isinstance(value, expected) or (isinstance(value, bool) and kind != "boolean"):
            return f"{at} is {type(value).__name__}, not {'bytes' if expected is bytes else kind}"
        if isinstance(value, dict):
            return self._of_map(schema, value, at)
        if isinstance(value, list | tuple):
            return self._of_array(schema, value, at)
        return ""

    def _of_map(self, schema: dict[str, Any], value: dict[str, Any], at: str) -> str:
        named = schema.get("properties", {})
        lacking = [name for name in schema.get("required", []) if name not in value]
        if lacking:
            return f"{at} lacks {', '.join(lacking)}"
        others = schema.get("additionalProperties")
        parts = [(named.get(key, others), item, f"{at}.{key}") for key, item in value.items()]
        faults = (self._fault(part, item, where) for part, item, where in parts if isinstance(part, dict))
        return next(filter(None, faults), "")

    def _of_array(self, schema: dict[str, Any], value: Any, at: str) -> str:
        first = schema.get("prefixItems", [])
        items = schema.get("items")
        if first and len(value) != len(first):
            return f"{at} has {len(value)} items, not {len(first)}"
        parts = first or ([items] * len(value) if isinstance(items, dict) else [])
        faults = (self._fault(part, item, at) for part, item in zip(parts, value, strict=False))
        return next(filter(None, faults), "")
