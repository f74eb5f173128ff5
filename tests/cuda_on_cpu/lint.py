"""How the CUDA kernels' accesses fall on memory: sectors of global memory and passes over the banks of shared memory.

Usage: PYTHONPATH=tests python -m cuda_on_cpu.lint [--write]. Runs a representative case of every kernel, of whole tiles
and in float32, in the emulator's counting build, and compares what each line's accesses take with the least that they
could. A line that takes more needs a reason in ``reasons.txt``. Prints what has none, and what is out of date, and
exits with 1 if anything is; with --write it makes the table, docs/kernels/accesses.md, anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from nstcore import Tensor
from nstcore.backend import moved, use_backend
from nstcore.backend.cuda import Family
from nstcore.ops import OPS, Case, Op

from . import build, launcher
from . import cupy_stand_in as cupy

TABLE = build.ROOT / "docs" / "kernels" / "accesses.md"
REASONS = Path(__file__).with_name("reasons.txt")


def _fours(rng: np.random.Generator, shape: tuple[int, ...], index: int) -> Any:
    """Embeddings, and labels of four each."""
    return np.arange(*shape) // 4 if index else rng.standard_normal(shape)


def _batch(mining: str) -> Case:
    return Case(mining, ((64, 64), (64,)), {"mining": mining, "margin": 30.0}, _fours, (1,))


_CONV = ((1, 8, 8, 32), (64, 3, 3, 32), (64,))
_FUSED = {"padding": 1, "activation": "relu"}
_MAP = (1, 16, 16, 64)
_ROWS = ((64, 128), (64, 128))
_PICTURE = ((1, 32, 32, 3),)
# Whole tiles, blocks and warps, so that edges do not decide; every kernel is in one.
CASES: dict[str, tuple[Case, ...]] = {
    "conv2d": (
        Case("direct", _CONV, {**_FUSED, "algorithm": "direct"}),
        Case("3x3", _CONV, {**_FUSED, "algorithm": "winograd4"}),
    ),
    "gram": (Case("map", ((1, 8, 16, 128),)),),
    "style_loss": (Case("map", ((1, 8, 16, 128), (1, 128, 128))),),
    "content_loss": (Case("map", (_MAP, _MAP)),),
    "total_variation": (Case("picture", _PICTURE),),
    "normalize_channels": (
        Case("picture", _PICTURE, {"scale": (2.0, 0.5, 3.0), "shift": (0.0, 1.0, 4.0), "reverse": True}),
    ),
    "max_pool2d": (Case("halves", (_MAP,), {"size": 2}), Case("wide", ((1, 34, 34, 32),), {"size": 17})),
    "avg_pool2d": (Case("halves", (_MAP,), {"size": 2}),),
    "pairwise_sqdist": (Case("rows", _ROWS),),
    "pairwise_inner": (Case("rows", _ROWS),),
    "pairwise_cosine": (Case("rows", _ROWS),),
    "nearest": (
        Case("distances", ((64, 16), (2048, 16)), {"k": 8}),
        Case("products", ((64, 16), (2048, 16)), {"k": 8, "metric": "inner"}),
    ),
    "triplet_loss": (Case("rows", ((256, 64),) * 3, {"margin": 30.0}),),
    "batch_triplet_loss": (_batch("batch_all"), _batch("semi_hard"), _batch("batch_hard")),
}


@dataclass(frozen=True)
class Line:
    """What a line of a kernel does to memory: loads, stores or atomics of so many bytes a lane."""

    kernel: str
    file: Path
    number: int
    kind: str
    memory: str
    bytes: int

    @property
    def code(self) -> str:
        """The line's text."""
        return _text(self.file)[self.number - 1].split("//")[0].strip()

    def __str__(self) -> str:
        return f"{self.file.name}:{self.number}: {self.kernel}: {self.code}"


@dataclass
class Count:
    """Accesses of a warp, the sectors or passes that they took, and the least that they could have."""

    accesses: int = 0
    taken: int = 0
    least: int = 0

    def add(self, accesses: int, taken: int, least: int) -> None:
        self.accesses += accesses
        self.taken += taken
        self.least += least

    @property
    def ideal(self) -> bool:
        return self.taken == self.least


Counts = dict[Line, Count]


@cache
def _text(file: Path) -> list[str]:
    return file.read_text("utf-8").split("\n")


def counted(launches: Callable[[], Any]) -> Counts:
    """What the accesses of every kernel take that is launched meanwhile, by line."""
    launcher.COUNTED.clear()
    with cupy.using(mode="counting"):
        launches()
    found: Counts = {}
    addresses: dict[launcher.Module, set[str]] = {}
    rows = [(module, kernel, text.splitlines()) for module, kernel, text in launcher.COUNTED]
    for module, _, lines in rows:
        addresses.setdefault(module, set()).update(line.split("\t")[0][3:] for line in lines if line[0] == "@")
    places = {module: module.places(sorted(wanted)) for module, wanted in addresses.items()}
    for module, kernel, lines in rows:
        for line in lines:
            place, kind, memory, *numbers = line.split("\t")
            if place[0] == "@":
                stack = places[module][place[3:]]
                place = next((frame for frame in stack if ".cu" in frame), stack[0])
            file, number = place.rsplit(":", 1)
            bytes_, *counts = map(int, numbers)
            found.setdefault(Line(kernel, Path(file), int(number), kind, memory, bytes_), Count()).add(*counts)
    return dict(sorted(found.items(), key=lambda item: (str(item[0].file), item[0].number, item[0].kernel)))


def run(op: Op, case: Case) -> None:
    """The op and its gradient, in the emulator."""
    given = [
        moved(x, "cuda-on-cpu") if i in case.integers or not op.gradient else Tensor(moved(x, "cuda-on-cpu"), True)
        for i, x in enumerate(case.inputs("float32"))
    ]
    with use_backend("cuda-on-cpu"):
        result = op.public(*given, **case.params)
        if op.gradient:
            result.backward(np.ones(result.shape, np.float32))


def run_cases(names: Iterable[str] = CASES) -> Counts:
    """What the kernels of these ops take in their representative cases."""
    return counted(lambda: [run(OPS[name], case) for name in names for case in CASES[name]])


def kernels() -> dict[str, str]:
    """Every kernel of the tables of launches, and its op."""
    modules = [import_module(f"nstcore.backend.{p.stem}") for p in (build.ROOT / "nstcore/backend").glob("cuda_*.py")]
    tables = [value for module in modules for value in vars(module).values() if isinstance(value, Family)]
    ops = {symbol: op.name for op in OPS.values() if op.cuda for symbol in op.cuda.symbols}
    return {name: ops.get(name, "an op without a record") for table in tables for name in table.launches}


@dataclass(frozen=True)
class Reason:
    """Why a line of some kernels is not ideal."""

    kernels: str  # a pattern
    code: str
    why: str

    def covers(self, line: Line) -> bool:
        return self.code == line.code and fnmatchcase(line.kernel, self.kernels)


def reasons(text: str) -> list[Reason]:
    """Of a text of paragraphs: why, in one line or more, and then lines ``    kernels | code``."""
    found = []
    for paragraph in text.split("\n\n"):
        lines = paragraph.strip("\n").split("\n")
        why = " ".join(line for line in lines if not line.startswith((" ", "#")))
        for line in lines:
            if line.startswith(" "):
                pattern, code = line.strip().split(" | ", 1)
                found.append(Reason(pattern, code, why))
    return found


def why(line: Line, known: Iterable[Reason]) -> Reason | None:
    """The first reason for a line."""
    return next((reason for reason in known if reason.covers(line)), None)


def offences(counts: Counts, known: Iterable[Reason], wanted: Iterable[str]) -> Iterator[str]:
    """A line for each access that is not ideal and has no reason, for each reason that nothing needs, and for each
    wanted kernel that did not run."""
    wasteful = [line for line, count in counts.items() if not count.ideal]
    for line in wasteful:
        if why(line, known) is None:
            count = counts[line]
            ratio = f"{count.taken / count.least:.2f} times the least"
            yield f"no reason for {line}  ({line.kind} of {line.bytes} bytes, {line.memory}: {ratio})"
    needed = {why(line, known) for line in wasteful}
    for reason in known:
        if reason not in needed:
            yield f"reason not needed: {reason.kernels} | {reason.code}"
    ran = {line.kernel for line in counts}
    for kernel in wanted:
        if kernel not in ran:
            op = kernels().get(kernel)
            yield f"no representative case for {kernel} of {op}: add one to CASES in tests/cuda_on_cpu/lint.py"


HEAD = """# Accesses to memory

What the accesses of each line take when a warp makes them, by `make accesses ARGS=--write`. The counts are the
emulator's, of float32 and whole tiles; [cuda.md](cuda.md#accesses) says how they are made.

Global memory is counted in sectors of 32 bytes, shared memory in passes over its 32 banks. *Least* is what the same
bytes would take side by side. Accesses are those of the text: a compiler may leave some out.

"""


def table(counts: Counts, known: list[Reason]) -> str:
    """The document."""
    texts = list(dict.fromkeys(reason.why for reason in known))
    rows = ["| kernel | line | access | accesses | taken | least | ratio | why |", "|---|---|---|---|---|---|---|---|"]
    for line, count in sorted(counts.items(), key=lambda item: item[0].kernel):
        reason = None if count.ideal else why(line, known)
        unit = "sectors" if line.memory == "global" else "passes"
        code = line.code.replace("|", "\\|")
        rows.append(
            f"| `{line.kernel}` | {line.file.name}: `{code}` | {line.kind} {line.bytes}, {unit} | {count.accesses} | "
            f"{count.taken} | {count.least} | {count.taken / count.least:.2f} | "
            f"{texts.index(reason.why) + 1 if reason else ''} |"
        )
    listed = "\n".join(f"{i}. {text}" for i, text in enumerate(texts, 1))
    ideal = sum(count.ideal for count in counts.values())
    summary = f"Of {len(counts)} lines {ideal} are ideal.\n\n## Why the others are not\n\n{listed}\n\n## Lines\n\n"
    return HEAD + summary + "\n".join(rows) + "\n"


def main(arguments: list[str]) -> int:
    """Count and compare; 1 if anything has no reason, no case, or is out of date."""
    counts, known = run_cases(), reasons(REASONS.read_text("utf-8"))
    made = table(counts, known)
    if "--write" in arguments:
        TABLE.write_text(made, "utf-8")
    found = list(offences(counts, known, kernels()))
    if not TABLE.exists() or TABLE.read_text("utf-8") != made:
        found.append(f"{TABLE.relative_to(build.ROOT)} is out of date: make accesses ARGS=--write")
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
