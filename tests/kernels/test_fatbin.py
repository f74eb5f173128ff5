"""Kernels that were compiled with the package: what is made, when it is taken, and what happens where it cannot be."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import cupy_stand_in as cupy

from nstcore.backend import cuda, fatbin
from nstcore.backend.cuda import Family, Launch
from nstcore.errors import BackendUnavailable

CSRC = cuda.sources()
MAGIC = b"\x50\xed\x55\xba"
SOURCE = """#include "../common/shift.cuh"
extern "C" __global__ void __launch_bounds__(32) set_cuda(NST_REAL* x, int n) {
    if (threadIdx.x < n) x[threadIdx.x] = shift;
}
"""


def write_nvcc(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a compiler that runs `body` in front of the others; $out is the file that it is to make."""
    folder.mkdir(exist_ok=True)
    nvcc = folder / "nvcc"
    nvcc.write_text(f'#!/bin/sh\nfor out; do :; done\necho "$@" >> "{folder}/calls"\n{body}\n')
    nvcc.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return nvcc


WORKS = r"""printf '\120\355\125\272code' > "$out" """


@pytest.fixture
def csrc(tmp_path: Path) -> Path:
    """Sources of one family, and a header."""
    for name, text in {"common/shift.cuh": "constexpr int shift = 3;\n", "try/try_cuda.cu": SOURCE}.items():
        (tmp_path / "csrc" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "csrc" / name).write_text(text)
    return tmp_path / "csrc"


@pytest.mark.no_emulator
class TestMade:
    @pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
    def test_by_nvcc(self, csrc: Path, tmp_path: Path) -> None:
        """Code of each architecture, and PTX of the newest."""
        made = fatbin.compile_kernels(csrc, tmp_path / "to", ["try"])
        assert [path.name.rsplit("-", 1)[0] for path in made] == ["try_cuda-float32", "try_cuda-float64"]
        assert {path.parent for path in made} == {tmp_path / "to" / "try"}
        for path in made:
            content = path.read_bytes()
            assert content.startswith(MAGIC)
            assert sorted(parts(content)) == [(1, fatbin.ARCHITECTURES[-1]), *((2, a) for a in fatbin.ARCHITECTURES)]
        if tool := shutil.which("cuobjdump"):
            listed = subprocess.run([tool, "--list-elf", made[0]], capture_output=True, text=True, check=True).stdout
            assert all(f"sm_{a}" in listed for a in fatbin.ARCHITECTURES)

    @pytest.mark.parametrize("family", ["gram", "pool"])
    def test_builds(self, family: str) -> None:
        """For tensor cores only what uses them."""
        expected = list(fatbin.BUILDS) if family == "gram" else ["float32", "float64"]
        assert fatbin.builds(CSRC / family / f"{family}_cuda.cu") == expected

    def test_every_source(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_nvcc(tmp_path / "bin", WORKS, monkeypatch)
        made = fatbin.compile_kernels(CSRC, tmp_path / "to")
        sources = sorted(CSRC.glob("*/*_cuda.cu"))
        names = [(p.parent.name, p.name) for p in made]
        assert names == [(s.parent.name, fatbin.name(s, b)) for s in sources for b in fatbin.builds(s)]
        assert sorted(p for p in (tmp_path / "to").rglob("*") if p.is_file()) == sorted(made)

    def test_once(self, csrc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """What is there is not made again; what was made of another source goes."""
        write_nvcc(tmp_path / "bin", WORKS, monkeypatch)
        first = fatbin.compile_kernels(csrc, tmp_path / "to")
        assert fatbin.compile_kernels(csrc, tmp_path / "to") == first
        assert len((tmp_path / "bin" / "calls").read_text().splitlines()) == len(first) == 2
        (csrc / "common" / "shift.cuh").write_text("constexpr int shift = 4;\n")
        second = fatbin.compile_kernels(csrc, tmp_path / "to")
        assert not set(first) & set(second)
        assert sorted((tmp_path / "to" / "try").iterdir()) == sorted(second)

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            ("echo 'note' >&2; echo 'try_cuda.cu(2): error: no' >&2; exit 2", r"try_cuda\.cu\(2\): error: no"),
            ("exit 1", "it made no file"),
            ("exit 0", "it made no file"),
        ],
    )
    def test_a_failing_nvcc_is_a_warning(
        self,
        csrc: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        body: str,
        said: str,
    ) -> None:
        write_nvcc(tmp_path / "bin", body, monkeypatch)
        assert fatbin.compile_kernels(csrc, tmp_path / "to") == []
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(
            "warning: nvcc could not compile 2 of 2 files of kernels, which will be compiled at their"
        )
        assert line.endswith(f"(try_cuda float32: {said})".replace("\\", ""))
        assert not any(path.is_file() for path in (tmp_path / "to").rglob("*"))

    def test_an_nvcc_that_cannot_run(
        self, csrc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write_nvcc(tmp_path / "bin", "", monkeypatch).write_bytes(b"\x7fELF no program")
        assert fatbin.compile_kernels(csrc, tmp_path / "to") == []
        assert "Exec format error" in capsys.readouterr().err

    def test_switched_off(
        self, csrc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Files of an earlier build are not packed either."""
        write_nvcc(tmp_path / "bin", WORKS, monkeypatch)
        (old, _) = fatbin.compile_kernels(csrc, tmp_path / "to")
        monkeypatch.setenv("NSTCORE_FATBINS", "0")
        assert fatbin.compile_kernels(csrc, tmp_path / "to") == []
        assert not old.exists()
        assert capsys.readouterr().err == ""

    def test_without_nvcc(
        self, csrc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("PATH", str(tmp_path))
        assert fatbin.compile_kernels(csrc, tmp_path / "to") == []
        assert capsys.readouterr().err == ""

    def test_the_name_changes_with_all_that_matters(self, csrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        source = csrc / "try" / "try_cuda.cu"
        names = {fatbin.name(source, "float32"), fatbin.name(source, "float64")}
        source.write_text(SOURCE + "\n")
        names.add(fatbin.name(source, "float32"))
        (csrc / "common" / "shift.cuh").write_text("\n")
        names.add(fatbin.name(source, "float32"))
        monkeypatch.setattr(fatbin, "ARCHITECTURES", (80, 90))
        names.add(fatbin.name(source, "float32"))
        assert len(names) == 5


def parts(content: bytes) -> Iterator[tuple[int, int]]:
    """Kind (1: PTX, 2: machine code) and architecture of each part of a fat binary.

    The file's header has its own size and that of all parts; a part's its own and that of what follows it.
    """
    at, end = int.from_bytes(content[6:8], "little"), int.from_bytes(content[8:16], "little")
    end += at
    while at < end:
        kind, header = content[at : at + 2], content[at + 4 : at + 8]
        yield int.from_bytes(kind, "little"), int.from_bytes(content[at + 28 : at + 32], "little")
        at += int.from_bytes(header, "little") + int.from_bytes(content[at + 8 : at + 16], "little")
    assert at == end


class TestTaken:
    """On the stand-in, which runs the source that a file's name tells."""

    @pytest.fixture
    def family(self, csrc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
        """Compiled beside its source, as in a wheel."""
        write_nvcc(tmp_path / "bin", WORKS, monkeypatch)
        assert len(fatbin.compile_kernels(csrc, csrc)) == 2
        monkeypatch.setattr(cuda, "sources", lambda: csrc)
        return Family("try", {"set_cuda": Launch(32, lambda n: (min(n, 1),))})

    @pytest.fixture
    def loaded(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """What modules are made of."""
        made: list[str] = []
        make = cupy.RawModule.__init__

        def note(self: Any, **given: Any) -> None:
            made.append(next(iter(given)))
            make(self, **given)

        monkeypatch.setattr(cupy.RawModule, "__init__", note)
        return made

    def run(self, family: Family, kind: str = "float32") -> None:
        x = cupy.empty(5, kind)
        family.run("set_cuda", x, (5,), x, 5)
        np.testing.assert_array_equal(x.get(), 3)

    @pytest.mark.parametrize("kind", ["float32", "float64"])
    def test_where_there_is_one(self, family: Family, loaded: list[str], kind: str) -> None:
        for _ in range(2):
            self.run(family, kind)
        assert loaded == ["path"]

    @pytest.mark.parametrize("file", ["common/shift.cuh", "try/try_cuda.cu"])
    def test_not_after_a_change(self, family: Family, loaded: list[str], csrc: Path, file: str) -> None:
        (csrc / file).write_text((csrc / file).read_text() + "// changed\n")
        self.run(family)
        assert loaded == ["code"]

    def test_not_of_other_devices(self, family: Family, loaded: list[str]) -> None:
        with cupy.using(capability=75):
            self.run(family)
        assert loaded == ["path", "code"]

    def test_not_a_damaged_one(self, family: Family, loaded: list[str]) -> None:
        found = fatbin.find(family.path, "float32")
        assert found is not None
        found.write_bytes(b"")
        self.run(family)
        assert loaded == ["path", "code"]

    @pytest.mark.gpu
    @pytest.mark.skipif(shutil.which("nvcc") is None, reason="nvcc is not installed")
    def test_on_a_gpu(self, csrc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """The driver takes what nvcc made; the compiler is not asked."""
        assert len(fatbin.compile_kernels(csrc, csrc)) == 2
        monkeypatch.setattr(cuda, "sources", lambda: csrc)
        monkeypatch.delattr(cuda, "_module")
        x = cuda.array_module("cuda").zeros(5, "float32")
        Family("try", {"set_cuda": Launch(32, lambda n: (min(n, 1),))}).run("set_cuda", x, (5,), x, 5)
        np.testing.assert_array_equal(x.get(), 3)

    def test_tensor_cores_of_an_older_device(self, family: Family, monkeypatch: pytest.MonkeyPatch) -> None:
        x = cupy.empty(5, "float32")
        own = Family("try", family.launches, tensor_cores=True)
        said = r"^\[precision\] tf32 needs a GPU of compute capability 8\.0 or more, this has 7\.5$"
        with cupy.using(capability=75), cuda.use_precision("tf32"), pytest.raises(BackendUnavailable, match=said):
            own.run("set_cuda", x, (5,), x, 5)
