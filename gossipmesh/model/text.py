"""Words that somebody else chose, made fit for a terminal and a log.

What moves a cursor, turns the reading direction or cannot be seen (Unicode's C and Z classes, not the plain
space) is written as an escape, so that what is read is what is there. Ends at text; what may be said at all
is its reader's business.
"""


def visible(text: str, *, kept: str = "\n") -> str:
    """Return `text` with whatever is not printable escaped as JSON and YAML do; `kept` stays as it is."""
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() or letter in kept else _escape(letter) for letter in text)


def _escape(letter: str) -> str:
    number = ord(letter)
    if number <= 0xFFFF:
        return f"\\u{number:04x}"
    number -= 0x10000  # two halves (RFC 8259 section 7), which JSON needs
    return f"\\u{0xD800 + (number >> 10):04x}\\u{0xDC00 + (number & 0x3FF):04x}"
