"""The built module runs on any processor of its family: wide instructions stay in the namespaces made for them.

A function that two builds of a hot file shared would be merged by the linker, and the copy that is kept could use
instructions that the machine lacks. So every function of the module outside of ``nst::isa_avx2`` and
``nst::isa_avx512`` is searched for instructions of the AVX families; those are the ones whose name begins with "v".
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from collections import defaultdict

import pytest

from nstcore import _native

WIDE = ("isa_avx2::", "isa_avx512::", "8isa_avx2", "10isa_avx512")  # the latter in names too long for objdump to undo
FUNCTION = re.compile(r"^[0-9a-f]+ <(.*)>:$")
INSTRUCTION = re.compile(r"^\s+[0-9a-f]+:\s+([a-z][a-z0-9]*)(.*)$")


@pytest.fixture(scope="module")
def vector_instructions() -> dict[str, set[str]]:
    """Names of functions of the built module, and the AVX instructions in each with the registers they use."""
    if platform.machine() not in ("x86_64", "AMD64"):
        pytest.skip("one instruction set on this processor")
    if shutil.which("objdump") is None:
        pytest.skip("objdump (binutils) is not installed")
    command = ["objdump", "-d", "-C", "--no-show-raw-insn", _native.__file__]
    listing = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    found: dict[str, set[str]] = defaultdict(set)
    function = ""
    for line in listing.splitlines():
        if match := FUNCTION.match(line):
            function = match[1]
        elif (match := INSTRUCTION.match(line)) and match[1].startswith("v"):
            found[function].add(re.sub(r".*%([xyz]mm|k).*", r"\1", match[2]))
    if not any(name.startswith("nst::") for name in found):
        pytest.skip("the built module is stripped of its symbols")
    return found


def test_no_wide_instruction_outside_its_namespace(vector_instructions: dict[str, set[str]]) -> None:
    leaked = [name for name in vector_instructions if not any(space in name for space in WIDE)]
    assert leaked == []


@pytest.mark.parametrize(("space", "register"), [("isa_avx2::", "ymm"), ("isa_avx512::", "zmm")])
def test_the_kernels_are_as_wide_as_they_say(
    vector_instructions: dict[str, set[str]], space: str, register: str
) -> None:
    """Shows that the search above would find something."""
    used = set().union(*(regs for name, regs in vector_instructions.items() if space in name))
    assert register in used
    assert ("zmm" in used) == (space == "isa_avx512::")
