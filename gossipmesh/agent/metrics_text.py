"""Metric families as values, and the text Prometheus reads of them.

A client library was 2.5 MB of every agent for these eighty lines; a test holds what is rendered against what
that library's own parser reads and its own renderer writes.
Spec: Prometheus text exposition format, version 0.0.4. Deviation: none.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum

import msgspec

Labels = tuple[tuple[str, str], ...]


class Kind(StrEnum):
    """What a family counts."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


class Sample(msgspec.Struct, frozen=True, gc=False):
    """One line: the family's name with `suffix`, labels in order, a value."""

    suffix: str
    labels: Labels
    value: float


class Family:
    """Samples of one name; `labels` name what distinguishes them. A counter's `_total` is of the text."""

    def __init__(self, kind: Kind, name: str, text: str, labels: Sequence[str] = ()) -> None:
        self.kind = kind
        self.name = name
        self.text = text
        self.samples: list[Sample] = []
        self._labels = tuple(labels)

    def add(self, values: Sequence[str], value: float) -> None:
        """Add one value, of the labels' values in their order."""
        suffix = "_total" if self.kind is Kind.COUNTER else ""
        self.samples.append(Sample(suffix, self._labelled(values), value))

    def add_histogram(self, values: Sequence[str], buckets: Sequence[tuple[str, int]], total: float) -> None:
        """Add one distribution: (upper bound, count at or below it) up to +Inf, and the sum of all."""
        labels = self._labelled(values)
        for bound, count in buckets:
            self.samples.append(Sample("_bucket", (*labels, ("le", bound)), count))
        self.samples.append(Sample("_count", labels, buckets[-1][1]))
        self.samples.append(Sample("_sum", labels, total))

    def _labelled(self, values: Sequence[str]) -> Labels:
        return tuple(zip(self._labels, values, strict=True))


def render(families: Iterable[Family]) -> bytes:
    """Return the text; takes no shared state, so it may run in a thread."""
    lines: list[str] = []
    for family in families:
        name = family.name + "_total" if family.kind is Kind.COUNTER else family.name
        lines.append(f"# HELP {name} {_escaped(family.text)}")
        lines.append(f"# TYPE {name} {family.kind}")
        lines += [
            f"{family.name}{one.suffix}{_braces(one.labels)} {_number(one.value)}" for one in family.samples
        ]
    return "".join(f"{line}\n" for line in lines).encode()


def _braces(labels: Labels) -> str:
    if not labels:
        return ""
    pairs = ",".join(f'{name}="{_escaped(value, quotes=True)}"' for name, value in labels)
    return f"{{{pairs}}}"


def _escaped(text: str, *, quotes: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quotes else text


def _number(value: float) -> str:
    if value != value:
        return "NaN"
    if value in (float("inf"), float("-inf")):
        return "+Inf" if value > 0 else "-Inf"
    return repr(float(value))
