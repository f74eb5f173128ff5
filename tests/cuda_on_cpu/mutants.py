"""Mutants of CUDA kernels: one change of one place each, such as a barrier dropped or < for <=.

They are found in the text, line by line: no list of files or of places has to be kept up to date.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

_SWAPS = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==",
    "&&": "||", "||": "&&", "min": "max", "max": "min",
    "+": "-", "-": "+", "*": "+", "/": "*", "%": "/", "&": "|",
    "+=": "-=", "-=": "+=", "*=": "/=", "/=": "*=",
}  # fmt: skip


def _swap(match: re.Match[str]) -> str:
    return match[0].replace(match[1], _SWAPS[match[1]])


# Each kind of change: where, and what is written there.
CHANGES: dict[str, tuple[str, str | Callable[[re.Match[str]], str]]] = {
    "barrier": (r"__sync(?:threads|warp)\(\);", ";"),
    "mask": (r"\bwhole_warp(?=, )", "whole_warp >> 1"),
    "atomic": (r"\batomicAdd\(&([^,]+), ([^;]+)\);", r"\1 += \2;"),
    "bound": (r"\b(min|max)(?=\()", _swap),
    "comparison": (r" (<|<=|>|>=|==|!=) (?=[\w(*])", _swap),
    "logic": (r" (&&|\|\|) ", _swap),
    "exit": (r"\b(?:return|continue|break);", ";"),
    "start": (r"(?<![!=<>])= 0(?=[;,])", "= 1"),
    "fill": (r"\breal\(0\)|(?<=return )0(?=;)|= \{\}(?=;)", lambda match: "= {1}" if "=" in match[0] else "real(1)"),
    "step": (r"(?<=\w)\+\+(?=[;)])", " += 2"),
    "sum": (r" ([-+*/]=) ", _swap),
    "arithmetic": (r"(?<=[\w)\]]) ([-+*/%&]) (?=[\w(*])", _swap),
}
ALWAYS = ("barrier", "mask", "atomic", "bound")  # of these every one is tried
NOT_CODE = re.compile(r"\s*(#|asm|template|static_assert)")
KERNEL = re.compile(r"__global__\s+void\s+__launch_bounds__\([^)]*\)\s+(\w+)\s*\(")


@dataclass(frozen=True)
class Mutant:
    """`text` instead of [start, end) of a file, on the `occurrence`-th line of this wording."""

    file: Path
    kind: str
    start: int
    end: int
    text: str
    occurrence: int = 1

    def source(self) -> str:
        """The whole file with the change."""
        source = self.file.read_text("utf-8")
        return source[: self.start] + self.text + source[self.end :]

    @property
    def number(self) -> int:
        """Of the line."""
        return self.file.read_text("utf-8").count("\n", 0, self.start) + 1

    @property
    def lines(self) -> tuple[str, str]:
        """The line before and after."""
        before, after = (
            text.split("\n")[self.number - 1].strip() for text in (self.file.read_text("utf-8"), self.source())
        )
        return before, after

    @property
    def kernel(self) -> str | None:
        """Name of the kernel in whose body it is; None outside of kernels, in what several may call."""
        before = self.file.read_text("utf-8")[: self.start]
        found = list(KERNEL.finditer(before))
        return found[-1][1] if found and "\n}\n" not in before[found[-1].end() :] else None

    def __str__(self) -> str:
        which = f", line {self.occurrence} of these" if self.occurrence > 1 else ""
        return "{}{}\n- {}\n+ {}".format(self.file.name, which, *self.lines)


def mutants(file: Path) -> Iterator[Mutant]:
    """Every change of a file, in code that the emulator compiles."""
    start, emulated, seen = 0, True, Counter[str]()
    for line in file.read_text("utf-8").splitlines(keepends=True):
        if re.match(r"\s*#(ifndef NST_EMULATED|endif)", line):
            emulated = "endif" in line
        seen[line.strip()] += 1
        code = "" if NOT_CODE.match(line) or not emulated else line.split("//")[0]
        for kind, (pattern, changed) in CHANGES.items():
            for match in re.finditer(pattern, code):
                text = changed(match) if callable(changed) else match.expand(changed)
                yield Mutant(file, kind, start + match.start(), start + match.end(), text, seen[line.strip()])
        start += len(line)


def chosen(found: Sequence[Mutant], most: int) -> list[Mutant]:
    """All mutants of the kinds that are always tried and `most` others, as many of each kind as there are.

    Which ones hangs on the text of the lines alone: they stay the same while other lines change.
    """
    always = [mutant for mutant in found if mutant.kind in ALWAYS]
    by_kind = [
        sorted((m for m in found if m.kind == kind), key=lambda m: hashlib.sha256(str(m).encode()).digest())
        for kind in CHANGES
        if kind not in ALWAYS
    ]
    others = [mutant for mutant in chain(*zip_longest(*by_kind)) if mutant is not None]
    return sorted([*always, *others[: most or None]], key=lambda mutant: mutant.start)
