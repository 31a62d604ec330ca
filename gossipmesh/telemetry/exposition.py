"""Prometheus' text format: families of samples as values, and the text they make.

Written here because prometheus-client costs an agent 3 MB for these few lines; it is the oracle of the
tests. Ends at bytes. Names are the caller's: they begin with a letter, units stand last before `_total`.

Spec: https://prometheus.io/docs/instrumenting/exposition_formats/, text format 0.0.4.
"""

from collections.abc import Iterable, Sequence
from typing import Final

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})
_HELP_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n"})


class Family:
    """One metric and its samples. `kind` is `counter`, `gauge` or `histogram`; a counter ends in `_total`."""

    __slots__ = ("_labels", "_lines", "kind", "name")

    def __init__(self, kind: str, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.kind = kind
        self.name = f"{name}_total" if kind == "counter" else name
        self._labels = tuple(labels)
        self._lines = [
            f"# HELP {self.name} {text.translate(_HELP_ESCAPES)}",
            f"# TYPE {self.name} {kind}",
        ]

    def add(self, values: Sequence[str], number: float) -> None:
        """Add the sample of one set of label values, in the order of the labels."""
        self._line("", self._pairs(values), number)

    def add_histogram(self, values: Sequence[str], buckets: Iterable[tuple[str, int]], total: float) -> None:
        """Add one histogram: (upper bound, count at or below it) in order up to `+Inf`, and the sum."""
        pairs = self._pairs(values)
        count = 0
        for bound, count in buckets:
            self._line("_bucket", [*pairs, f'le="{bound}"'], count)
        self._line("_count", pairs, count)
        self._line("_sum", pairs, total)

    def _pairs(self, values: Sequence[str]) -> list[str]:
        return [
            f'{label}="{value.translate(_ESCAPES)}"'
            for label, value in zip(self._labels, values, strict=True)
        ]

    def _line(self, suffix: str, pairs: Sequence[str], number: float) -> None:
        labels = f"{{{','.join(pairs)}}}" if pairs else ""
        self._lines.append(f"{self.name}{suffix}{labels} {float(number)!r}")

    def __str__(self) -> str:
        return "\n".join(self._lines)


def render(families: Iterable[Family]) -> bytes:
    """Return the text of one scrape."""
    return "".join(f"{family}\n" for family in families).encode()
