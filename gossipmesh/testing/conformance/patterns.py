"""Whether a value is as a transcript says: a map names what must be there, everything else must be equal.

`{"at_least": N}`, `{"at_most": N}`, `{"contains": TEXT}`, `{"starts": TEXT}` and `{"any": true}` stand for
more than one value.
"""

from collections.abc import Callable
from typing import Any, Final

_WORDS: Final[dict[str, Callable[[Any, Any], bool]]] = {
    "at_least": lambda value, bound: value >= bound,
    "at_most": lambda value, bound: value <= bound,
    "contains": lambda value, text: text in value,
    "starts": lambda value, text: value.startswith(text),
    "any": lambda _value, _: True,
}


def fits(pattern: Any, value: Any) -> bool:
    """Tell whether `value` is as `pattern` says."""
    if isinstance(pattern, dict) and len(pattern) == 1 and set(pattern) <= set(_WORDS):
        ((word, bound),) = pattern.items()
        try:
            return _WORDS[word](value, bound)
        except (TypeError, AttributeError):
            return False
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(
            key in value and fits(part, value[key]) for key, part in pattern.items()
        )
    if isinstance(pattern, list):
        return (
            isinstance(value, list | tuple)
            and len(pattern) == len(value)
            and all(fits(part, item) for part, item in zip(pattern, value, strict=True))
        )
    return type(pattern) is type(value) and bool(pattern == value)
