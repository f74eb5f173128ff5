"""The .cu files, the tables of launches and the records of ops name the same kernels."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest
from cuda_on_cpu import build

import nstcore.backend
from nstcore.backend.cuda import Family, sources
from nstcore.ops import OPS

pytestmark = pytest.mark.no_emulator


def families() -> dict[str, Family]:
    """Every table of launches in `nstcore.backend`, by the name of its family."""
    folder = Path(nstcore.backend.__file__).parent
    modules = [import_module(f"nstcore.backend.{path.stem}") for path in sorted(folder.glob("cuda_*.py"))]
    tables = [value for module in modules for value in vars(module).values() if isinstance(value, Family)]
    return {table.name: table for table in tables}


FILES = sorted(sources().glob("*/*_cuda.cu"))
DECLARED = [symbol for op in OPS.values() if op.cuda for symbol in op.cuda.symbols]


def test_each_file_has_a_table() -> None:
    assert sorted(table.path for table in families().values()) == FILES


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_kernels_and_launches_agree(path: Path) -> None:
    (table,) = (table for table in families().values() if table.path == path)
    assert sorted(name for name, _ in build.kernels(path)) == sorted(table.launches)
    assert table.tensor_cores == ("MatrixProduct" in path.read_text("utf-8"))
    assert path.read_text("utf-8").count("__global__") == len(table.launches), "a kernel the pattern does not see"


def test_kernels_and_records_agree() -> None:
    kernels = [name for path in FILES for name, _ in build.kernels(path)]
    assert sorted(DECLARED) == sorted(kernels)


def test_kernels_carry_the_name_of_their_op() -> None:
    for op in OPS.values():
        for symbol in op.cuda.symbols if op.cuda else ():
            assert re.fullmatch(rf"{op.name}_(forward|backward)(_[a-z]+)*_cuda", symbol)
