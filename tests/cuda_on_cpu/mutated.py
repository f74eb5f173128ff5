"""Runs the tests of the kernels on mutants: a plugin that pytest hands its tests to, which forks a process a mutant.

Which tests a mutant needs was noted before, by running each of them once on the kernels as they are: those that launch
a kernel of a file that the change is in, or that includes it. They run in the order of what they cost, and the first
that fails ends it. The changed file is compiled in a hurry, and only as what the tests ask for.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from _pytest.runner import runtestprotocol

from nstcore.backend import cuda

from . import build
from . import cupy_stand_in as cupy
from .launcher import Findings, LaunchError, Module
from .mutants import Mutant

KINDS = {Findings: "checker", LaunchError: "launch", build.BuildError: "compiler"}
AT_ONCE = 2  # processes
LONGEST = 3.0  # seconds of a processor: a test that takes longer is left out
MEMORY = 8 << 30  # bytes of addresses that a mutant may have

Launched = tuple[str, str, str, str]  # file, build, mode, kernel


@dataclass(frozen=True)
class Seen:
    """What a test did on the kernels as they are."""

    fate: str  # empty: it passed
    seconds: float
    launched: tuple[Launched, ...]

    @property
    def cost(self) -> tuple[Any, ...]:
        """What is compiled counts more than what runs."""
        return sorted({(mode == "fast", build) for _, build, mode, _ in self.launched})[::-1], self.seconds


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _parameter(value: Any) -> str:
    """A parameter of a test as text that is the same in every process."""
    if is_dataclass(value) and hasattr(value, "shapes"):
        value = [value.shapes, sorted(getattr(value, "params", {}).items())]
    return getattr(value, "name", None) or repr(value).split(" at 0x")[0]


@cache
def _machine_digest() -> str:
    names = ("emulator.h", "machine.h", "cuda_shim.h", "scheduler.cpp", "memory.cpp", "launcher.py")
    return digest(*((build.HERE / name).read_text("utf-8") for name in names))


@cache
def included(path: Path, name: str) -> frozenset[str]:
    """The files that one of `cuda.BUILDS` of a .cu file is made of, by name."""
    command = [build.compiler() or "g++", "-MM", "-x", "c++", "-std=c++17", *cuda.BUILDS[name], str(path)]
    listed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return frozenset(Path(word).name for word in listed.replace("\\\n", " ").split()[1:])


def is_small(item: pytest.Function, most_flops: float) -> bool:
    """Whether it is no test of a large case of a record."""
    values = getattr(getattr(item, "callspec", None), "params", {})
    if "op" not in values or "case" not in values or values["op"].flops is None:
        return True
    return values["op"].flops(*values["case"].shapes, **values["case"].params) <= most_flops


class Tests:
    """The tests that pytest found, and what is known about them."""

    def __init__(self, items: Sequence[pytest.Function], known: dict[str, Any]) -> None:
        self.items = {item.nodeid: item for item in items}
        self.digests = {name: self._digest(item) for name, item in self.items.items()}
        self.seen: dict[str, Seen] = {}
        for name, mark in self.digests.items():
            if mark in known and (not known[mark]["fate"] or self._takes_long(known[mark])):
                launched = tuple(tuple(one) for one in known[mark]["launched"])
                self.seen[name] = Seen(known[mark]["fate"], known[mark]["seconds"], launched)  # type: ignore[arg-type]

    @staticmethod
    def _takes_long(seen: dict[str, Any]) -> bool:
        """What else a test failed by, a change of the kernels may have mended."""
        return bool(seen["fate"] == "time" and seen["seconds"] >= LONGEST)

    def _digest(self, item: pytest.Function) -> str:
        callspec = getattr(item, "callspec", None)
        values = [] if callspec is None else [f"{k}={_parameter(v)}" for k, v in sorted(callspec.params.items())]
        return digest(item.nodeid.split("::", 1)[-1], inspect.getsource(item.function), *values)

    def known(self) -> dict[str, Any]:
        """What a later run need not find out again."""
        return {self.digests[name]: asdict(seen) for name, seen in self.seen.items()}

    def relevant(self, mutant: Mutant) -> list[str]:
        """The tests that may notice a mutant, in the order that they should run in."""

        def reaches(launched: Launched) -> bool:
            path, name, _, kernel = launched
            if mutant.kernel is not None:
                return kernel == mutant.kernel
            return mutant.file.name in included(cuda.sources() / path, name)

        found = [name for name, seen in self.seen.items() if not seen.fate and any(map(reaches, seen.launched))]
        return sorted(found, key=lambda name: self.seen[name].cost)

    def state(self, mutant: Mutant, names: Sequence[str]) -> str:
        """A digest of all that the fate of a mutant hangs on, where these tests decide it."""
        launched = {(path, build) for name in names for path, build, _, _ in self.seen[name].launched}
        files = {file for path, build in launched for file in included(cuda.sources() / path, build)}
        texts = [p.read_text("utf-8") for p in sorted(cuda.sources().rglob("*.cu*")) if p.name in files]
        tables = {f"cuda_{Path(path).parts[0]}.py" for path, _ in launched}
        texts += [p.read_text("utf-8") for p in sorted(build.ROOT.glob("nstcore/backend/*")) if p.name in tables]
        return digest(str(mutant), _machine_digest(), *texts, *(self.digests[name] for name in names))


class Fate:
    """A plugin that notes why a test failed."""

    kind = ""

    def pytest_runtest_makereport(self, call: Any) -> None:
        if call.excinfo is not None and not call.excinfo.errisinstance(pytest.skip.Exception) and not self.kind:
            error = call.excinfo.value  # nstcore tells of a launch that failed in words of its own
            self.kind = KINDS.get(type(error), KINDS.get(type(error.__cause__), "result"))


def run(item: pytest.Function, seconds: float) -> str:
    """What a test is failed by; the process ends where it takes longer, in the time of a processor."""
    fate = Fate()
    item.config.pluginmanager.register(fate)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    runtestprotocol(item, log=False, nextitem=None)
    signal.setitimer(signal.ITIMER_PROF, 0)
    item.config.pluginmanager.unregister(fate)
    return fate.kind


def watched(item: pytest.Function) -> Seen:
    """Run a test on the kernels as they are."""
    launched: dict[Launched, None] = {}
    function = cuda._function

    def noted(path: Path, module: str, name: str, kernel: str, device: int) -> Any:
        launched[str(path.relative_to(cuda.sources())), name, cupy.MODE["mode"], kernel] = None
        return function(path, module, name, kernel, device)

    cuda._function = noted  # type: ignore[assignment]
    before = time.process_time()
    fate = run(item, LONGEST)
    cuda._function = function
    return Seen(fate, time.process_time() - before, tuple(launched))


def use_changed(mutant: Mutant, folder: Path) -> None:
    """From here on this process has its kernels from a copy of the sources with the change."""
    root, copy = cuda.sources(), folder / "csrc"
    for source in root.rglob("*.cu*"):
        target = copy / source.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(mutant.source() if source == mutant.file else source.read_text("utf-8"), "utf-8")
    machine = build.machine()
    build.BUILD = folder
    (folder / machine.name).symlink_to(machine)
    os.environ["CCACHE_DISABLE"] = "1"
    cuda.sources = lambda: copy  # type: ignore[assignment]
    for remembered in (cuda._headers, cuda._compiled, cuda._module, cuda._function):
        remembered.cache_clear()


def in_processes(jobs: Sequence[Any], work: Callable[[Any, Any], None]) -> Iterator[tuple[Any, list[Any], int]]:
    """Call work(job, tell) in a process each; gives the job, what it told, and how it ended."""
    running: dict[int, tuple[Any, Any]] = {}
    waiting = list(jobs)
    while waiting or running:
        while waiting and len(running) < AT_ONCE:
            job, told = waiting.pop(0), tempfile.TemporaryFile("w+")  # noqa: SIM115
            pid = os.fork()
            if pid == 0:
                _child(job, work, told)
            running[pid] = job, told
        pid, status = os.wait()
        job, told = running.pop(pid)
        told.seek(0)
        yield job, [json.loads(line) for line in told], os.waitstatus_to_exitcode(status)
        told.close()


def _child(job: Any, work: Callable[[Any, Any], None], told: Any) -> None:
    status = 1
    try:
        null = os.open(os.devnull, os.O_RDWR)
        for stream in (0, 1, 2):
            os.dup2(null, stream)
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        work(job, lambda value: print(json.dumps(value), file=told, flush=True))
        status = 0
    finally:
        os._exit(status)


def baseline(tests: Tests) -> Iterator[None]:
    """Run every test that is not known yet on the kernels as they are; stops now and then for who wants to save it."""

    def work(names: list[str], tell: Any) -> None:
        for name in names:
            tell([name, None])
            tell([name, asdict(watched(tests.items[name]))])

    unknown = [name for name in tests.items if name not in tests.seen]
    while unknown:
        parts = [unknown[i : i + 20] for i in range(0, len(unknown), 20)]
        for _, told, ended in in_processes(parts, work):
            if not told:
                raise RuntimeError(f"a process that runs tests ended with {ended}")
            for name, seen in told:
                tests.seen[name] = Seen(**seen) if seen else Seen("time", LONGEST, ())
            yield
        unknown = [name for name in tests.items if name not in tests.seen]


def fates(tests: Tests, mutants: Sequence[Mutant]) -> Iterator[tuple[Mutant, str, str]]:
    """Each mutant, what it was found out by (nothing where it survived), and the test that did."""

    def work(mutant: Mutant, tell: Any) -> None:
        names = tests.relevant(mutant)
        folder = Path(tempfile.mkdtemp(prefix="mutant-"))
        tell(["", str(folder)])
        use_changed(mutant, folder)
        for name in names:
            tell([name, "crash"])
            kind = run(tests.items[name], 5 + 20 * tests.seen[name].seconds)
            tell([name, kind])
            if kind:
                return

    for mutant, told, ended in in_processes(mutants, work):
        shutil.rmtree(told[0][1], ignore_errors=True)
        if ended and len(told) == 1:
            raise RuntimeError(f"the sources cannot be copied, or the emulator not found, for {mutant}")
        name, kind = told[-1] if len(told) > 1 else ("", "")
        yield mutant, "time" if ended == -signal.SIGPROF else kind, name


def compile_in_a_hurry() -> None:
    """Checked builds from here on: not optimised, without lines for findings, the shim's headers read beforehand."""
    flags = ("-O0", "-w", *(flag for flag in build.MODES["checked"] if not flag.startswith(("-O", "-g"))))
    shim = build.HERE / "cuda_shim.h"
    folder = build.BUILD / f"shim-{digest(build.machine().name, *flags)}"
    target = folder / "cuda_shim.h.gch"
    folder.mkdir(exist_ok=True)
    if not target.exists():
        build._compile([*build.COMMON, *flags, f"-I{build.HERE}", "-x", "c++-header", str(shim)], target)
    build.MODES["checked"] = (*flags, f"-I{folder}")
    Module._with_lines = lambda self, text: text  # type: ignore[method-assign]


class Server:
    """The plugin: instead of running its tests, pytest calls `serve` with them."""

    def __init__(self, sources: Path, most_flops: float, serve: Callable[[list[pytest.Function]], None]) -> None:
        self.sources, self.most_flops, self.serve = sources, most_flops, serve

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        cuda.sources = lambda: self.sources  # type: ignore[assignment]
        compile_in_a_hurry()
        functions = [item for item in session.items if isinstance(item, pytest.Function)]
        self.serve([item for item in functions if is_small(item, self.most_flops)])
        return True


def collect(
    sources: Path, arguments: Sequence[str], most_flops: float, serve: Callable[[list[pytest.Function]], None]
) -> None:
    """Let pytest find tests, and call `serve` with them; of cases of records, those of at most so many operations."""
    options = ["-q", "-s", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:faulthandler"]
    server = Server(sources, most_flops, serve)
    code = pytest.main([*options, "--rootdir", str(build.ROOT), *arguments], [server])
    if code != pytest.ExitCode.OK:
        sys.exit(f"the tests cannot be collected: {code.name if isinstance(code, pytest.ExitCode) else code}")
