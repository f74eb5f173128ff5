"""Changes the CUDA kernels one place at a time, and says which changes no test notices.

Usage: PYTHONPATH=tests python -m cuda_on_cpu.mutate [family ...] [--most N]. Every .cu and .cuh file has its mutants:
each barrier, mask, atomic addition, minimum and maximum, and N others. A mutant is killed by what the checker finds,
by a result that is off, by a crash, by not ending, or by the compiler. Fates are kept in ``build`` until the kernel or
the tests that decided them change, so that a run can be stopped and continued. Exits with 1 where a mutant survives
that ``survivors.txt`` does not explain, or where an explanation there is stale.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from nstcore.files import atomic_write

from . import build
from .mutants import Mutant, chosen, mutants
from .mutated import Tests, baseline, collect, fates

EXPLAINED = Path(__file__).with_name("survivors.txt")
REMEMBERED = build.BUILD / "mutants.json"
KERNEL_TESTS = [
    str(build.ROOT / "tests" / "kernels" / f"test_{name}.py") for name in ("edges", "parity", "precision", "winograd")
]
# Tests without the checker, and double, for which no line is different.
LEFT_OUT = ["-k", "not order_of_threads and not strided and not cases_of_the_records and not float64"]
KILLED = ("checker", "result", "crash", "time", "launch", "compiler")


def explanations(path: Path) -> dict[str, str]:
    """Mutants, worded as `Mutant` is, and why they cannot be noticed.

    The file has a block of lines each: the mutant's three, then the reason, and nothing but blank lines and lines that
    begin with # between the blocks.
    """
    found = {}
    text = path.read_text("utf-8") if path.exists() else ""
    for block in re.split(r"\n\s*\n", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE)):
        if lines := [line.strip() for line in block.strip().splitlines()]:
            if len(lines) < 4 or lines[1][:2] != "- " or lines[2][:2] != "+ ":
                raise SystemExit(f"{path.name}: expects a file, - a line, + a line and a reason, got {lines[0]!r}")
            found["\n".join(lines[:3])] = " ".join(lines[3:])
    return found


class Results:
    """Fates of mutants, kept in a file: what was found out by which test, and a digest of all that this hangs on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: dict[str, Any] = json.loads(path.read_text("utf-8")) if path.exists() else {"tests": {}, "fates": {}}

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write(self.path, lambda file: file.write(json.dumps(self.kept).encode()))

    def fate(self, mutant: Mutant, tests: Tests) -> str | None:
        """What it was found out by, empty where it survived; None where this is not known."""
        entry = self.kept["fates"].get(str(mutant))
        if entry is None or (entry["test"] and entry["test"] not in tests.seen):
            return None
        return entry["fate"] if entry["state"] == self._state(mutant, tests, entry["test"]) else None

    def keep(self, mutant: Mutant, tests: Tests, fate: str, test: str) -> None:
        state = self._state(mutant, tests, test if fate else "")
        self.kept["fates"][str(mutant)] = {"fate": fate, "test": test if fate else "", "state": state}
        self.save()

    @staticmethod
    def _state(mutant: Mutant, tests: Tests, test: str) -> str:
        return tests.state(mutant, [test] if test else tests.relevant(mutant))


def find_out(wanted: Sequence[Mutant], tests: Tests, results: Results) -> dict[Mutant, str]:
    """The fate of each mutant, from what is kept or by running it; shown as it comes."""
    for _ in baseline(tests):
        results.kept["tests"].update(tests.known())
        results.save()
    for name, seen in tests.seen.items():
        if seen.fate:
            print(f"left out, {'too long' if seen.fate == 'time' else 'FAILS unchanged'}: {name}", file=sys.stderr)
    known = {mutant: fate for mutant in wanted if (fate := results.fate(mutant, tests)) is not None}
    unknown = [mutant for mutant in wanted if mutant not in known]
    print(f"{len(wanted)} mutants, {len(known)} known", file=sys.stderr, flush=True)
    for mutant, fate, test in fates(tests, unknown):
        known[mutant] = fate
        results.keep(mutant, tests, fate, test)
        shown = str(mutant).replace("\n", "\n    ")
        print(f"{fate or 'ALIVE'} ({test.split('::')[-1]}): {shown}", file=sys.stderr, flush=True)
    return known


def table(known: dict[Mutant, str]) -> str:
    """Counts by file, in Markdown."""
    rows = ["| file | mutants | " + " | ".join(KILLED) + " | survive |", "|---" * (len(KILLED) + 3) + "|"]
    for name in [*sorted({mutant.file.name for mutant in known}), "all"]:
        counts = Counter(fate for mutant, fate in known.items() if name in (mutant.file.name, "all"))
        cells = [counts.total(), *(counts[kind] for kind in KILLED), counts[""]]
        rows.append(f"| {'all' if name == 'all' else f'`{name}`'} | " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def judged(known: dict[Mutant, str], every: Iterable[Mutant], reasons: dict[str, str]) -> list[str]:
    """What is wrong: survivors without a reason, and reasons that are stale."""
    there, wrong = {str(mutant) for mutant in every}, []
    for mutant, fate in known.items():
        if not fate and str(mutant) not in reasons:
            wrong.append(f"survives and is not explained:\n{mutant}")
        if fate and str(mutant) in reasons:
            wrong.append(f"explained, but killed ({fate}):\n{mutant}")
    wrong += [f"explained, but not in the sources any more:\n{name}" for name in reasons if name not in there]
    return wrong


def main(given: Sequence[str] | None = None) -> int:
    """Run the mutants; 1 if one survives that nobody has explained, or an explanation is stale."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="folders of the sources; all by default")
    parser.add_argument("--most", type=int, default=16, help="mutants a file, besides those always tried; 0 for all")
    parser.add_argument(
        "--only", default="", help="of these, those that have this text in the file's name or the lines"
    )
    parser.add_argument("--sources", type=Path, default=build.ROOT / "csrc")
    parser.add_argument("--tests", default=shlex.join([*KERNEL_TESTS, *LEFT_OUT]), help="arguments of pytest")
    parser.add_argument("--flops", type=float, default=1e7, help="cases of more operations are left out")
    parser.add_argument("--explained", type=Path, default=EXPLAINED)
    parser.add_argument("--results", type=Path, default=REMEMBERED)
    arguments = parser.parse_args(given)
    files = sorted(arguments.sources.resolve().rglob("*.cu*"))
    every = {file: list(mutants(file)) for file in files}
    families = arguments.families or [file.parent.name for file in files]
    wanted = [m for file in files if file.parent.name in families for m in chosen(every[file], arguments.most)]
    wanted = [m for m in wanted if arguments.only in str(m)]
    known: dict[Mutant, str] = {}

    def serve(items: list[Any]) -> None:
        results = Results(arguments.results)
        known.update(find_out(wanted, Tests(items, results.kept["tests"]), results))

    with contextlib.redirect_stdout(io.StringIO()):
        collect(arguments.sources.resolve(), shlex.split(arguments.tests), arguments.flops, serve)
    print(table(known))
    wrong = judged(known, [m for found in every.values() for m in found], explanations(arguments.explained))
    print("\n".join(["", *wrong] if wrong else ["", "every survivor is explained"]))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
