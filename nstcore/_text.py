"""Text for a terminal or a line of a list."""

from __future__ import annotations

import unicodedata

_CATEGORIES = frozenset(("Cc", "Cs", "Zl", "Zp"))  # control characters, halves of characters, breaks of lines
_TURNS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # show other text around them reversed


def printable(text: str) -> str:
    r"""Text on one line that changes nothing but what it says: control characters and line breaks as escapes.

    A file may be called anything: an escape sequence in its name would be carried out by a terminal, and a tab or a
    newline would make two fields or lines of one.

    >>> print(printable("a\x1b[31m\tb\udcff é"))
    a\x1b[31m\tb\udcff é
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(_escaped(c) if c in _TURNS or unicodedata.category(c) in _CATEGORIES else c for c in text)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
