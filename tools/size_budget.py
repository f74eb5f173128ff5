"""Checks that files and functions stay short enough to read, and the repository small enough to clone.

Usage: python tools/size_budget.py [folder]. Prints what is over its budget and exits with 1 if anything is.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LINES = {".py": 500, ".cpp": 500, ".h": 500, ".cu": 400, ".cuh": 400}
FUNCTION_LINES = 70
TREE_BYTES = 15_000_000
# The weights are large, committed once, and not counted.
NOT_COUNTED = "nstcore/weights/data/"
NOT_OURS = {
    ".git",
    ".venv",
    "build",
    "dist",
    "__pycache__",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
}


def files(root: Path) -> list[Path]:
    """Files that git tracks or would track; without git, all but what tools leave behind."""
    command = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    try:
        listed = subprocess.run(command, capture_output=True, check=True, text=True).stdout.split("\0")
        found = [root / name for name in listed if name]
    except (OSError, subprocess.CalledProcessError):
        found = [path for path in root.rglob("*") if not NOT_OURS & set(path.relative_to(root).parts)]
    return sorted(path for path in found if path.is_file())


def long_functions(source: str) -> Iterator[tuple[str, int, int]]:
    """Name, first line and length of each function that is over the budget."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield node.name, node.lineno, length


def offences(root: Path) -> Iterator[str]:
    """One line for each thing that is over its budget."""
    total = 0
    for path in files(root):
        name = path.relative_to(root).as_posix()
        if not name.startswith(NOT_COUNTED):
            total += path.stat().st_size
        limit = LINES.get(path.suffix)
        if limit is None:
            continue
        source = path.read_text(encoding="utf-8")
        length = len(source.splitlines())
        if length > limit:
            yield f"{name}: {length} lines, at most {limit}"
        if path.suffix == ".py":
            for function, line, size in long_functions(source):
                yield f"{name}:{line}: {function} has {size} lines, at most {FUNCTION_LINES}"
    if total > TREE_BYTES:
        yield f"the tree without {NOT_COUNTED} has {total / 1e6:.1f} MB, at most {TREE_BYTES / 1e6:.0f}"


def main(arguments: list[str]) -> int:
    """Print the offences of a folder; 1 if there are any."""
    root = Path(arguments[0] if arguments else Path(__file__).parents[1])
    found = list(offences(root))
    for line in found:
        print(line)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
