"""One timer for all benchmarks: competitors take turns, so that a noisy machine is noisy for all of them.

Import this module first: it sets the number of threads and the instruction set of every library before they load.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

# Switches of one benchmark file alone.
EXTRA = {
    "gallery_bench": {"--small": "100,000 people alone"},
    "style_bench": {"--to-loss": "time to the loss that PyTorch's L-BFGS reaches in 300 evaluations, nothing else"},
}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--profile", choices=("fast", "full"), default="fast", help="fewer shapes and rounds, or all")
    parser.add_argument("--threads", type=int, default=2, help="threads for every competitor")
    parser.add_argument("--isa", choices=("base", "avx2", "avx512"), help="hold every competitor to this set")
    parser.add_argument("--json", metavar="FILE", help="also write the table and the machine to this file")
    for option, what in EXTRA.get(Path(sys.argv[0]).stem, {}).items():
        parser.add_argument(option, action="store_true", help=what)
    return parser.parse_args()


ARGS = _arguments()

# How each library is told not to use more than an instruction set.
HOLD_BACK = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "OPENBLAS_CORETYPE": "Haswell"},
    "base": {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "OPENBLAS_CORETYPE": "Nehalem"},
}
os.environ.update({f"{name}_NUM_THREADS": str(ARGS.threads) for name in ("OMP", "OPENBLAS", "MKL", "NSTCORE")})
os.environ.update(HOLD_BACK.get(ARGS.isa, {}))
# A waiting thread of OpenBLAS spins for 2 to this power of cycles: by default long enough to slow its successors down.
os.environ["OPENBLAS_THREAD_TIMEOUT"] = "16"
if ARGS.isa:
    os.environ["NSTCORE_ISA"] = ARGS.isa
    os.environ["FAISS_OPT_LEVEL"] = {"base": "generic", "avx2": "avx2"}.get(ARGS.isa, "avx512")

import json  # noqa: E402
import platform  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from concurrent.futures import ThreadPoolExecutor  # noqa: E402
from dataclasses import asdict, dataclass, field  # noqa: E402
from importlib import import_module  # noqa: E402
from importlib.metadata import PackageNotFoundError, version  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402

import nstcore as nst  # noqa: E402

FULL = ARGS.profile == "full"
ROUNDS, SECONDS = (9, 4.0) if FULL else (5, 1.5)  # at least so many rounds, and about so long, for each piece of work
MOST_ROUNDS = 200
LEAST_SAMPLE = 5e-3  # a sample repeats a short call until it takes this long
PAUSE = 1e-2  # lets the last competitor's threads stop spinning: they wait some milliseconds for more work


@dataclass(frozen=True)
class Contender:
    """A way to do the work. `result` turns what `run` returns into the arrays that the reference is compared with."""

    name: str
    run: Callable[[], Any]
    result: Callable[[Any], Sequence[Any]] = lambda value: value if isinstance(value, tuple) else (value,)


@dataclass
class Row:
    """What one contender needed for one piece of work; times in milliseconds."""

    work: str
    contender: str
    median_ms: float
    min_ms: float
    spread: float  # (90th - 10th percentile) / median
    rounds: int
    ratio: float  # median over the rounds of its time / ours
    flops: float
    bytes: float
    error: float | None  # largest error against the reference / largest value
    samples: list[float] = field(repr=False)


def optional(name: str) -> Any:
    """A library if it is installed, else None; what is missing is printed by `Bench`."""
    try:
        module = import_module(name)
    except ImportError:
        return None
    if name == "torch":
        module.set_num_threads(ARGS.threads)
    if name == "faiss":
        module.omp_set_num_threads(ARGS.threads)
    return module


class Bench:
    """Collects the rows of one benchmark file, then prints and writes them."""

    def __init__(self, title: str, libraries: Sequence[str] = ()) -> None:
        self.title = title
        self.rows: list[Row] = []
        self.libraries = {name: optional(name) for name in libraries}
        self.peaks = [measure_peak()]
        missing = [name for name, module in self.libraries.items() if module is None]
        if missing:
            print(f"not installed, so not compared: {', '.join(missing)} (pip install 'nstcore[bench]')")

    def measure(
        self,
        work: str,
        contenders: Sequence[Contender],
        *,
        flops: float = 0.0,
        traffic: float = 0.0,
        reference: Sequence[Any] | None = None,
    ) -> None:
        """Time the contenders, ours first, in turns.

        flops: multiplications and additions that the work takes. traffic: bytes that it must read and write.
        reference: the exact results; each contender's are compared with them.
        """
        print(f"{self.title}: {work} ...", file=sys.stderr, flush=True)
        errors = [_error(c.result(c.run()), reference) for c in contenders]  # the first call warms up, too
        repeats = [_repeats(c.run) for c in contenders]
        samples = _take_turns(contenders, repeats)
        ours = np.array(samples[0])
        for contender, times, error in zip(contenders, samples, errors, strict=True):
            low, middle, high = np.percentile(times, (10, 50, 90))
            ratio = float(np.median(np.array(times) / ours))
            spread = float((high - low) / middle)
            row = Row(work, contender.name, middle, min(times), spread, len(times), ratio, flops, traffic, error, times)
            self.rows.append(row)

    def finish(self) -> None:
        """Print the table, and write it where --json says."""
        self.peaks.append(measure_peak())
        gflops, gbytes = (max(peak[i] for peak in self.peaks) for i in (0, 1))
        machine = describe_machine(gflops, gbytes, self.libraries)
        print(f"\n{self.title}: {', '.join(f'{key} {value}' for key, value in machine.items())}")
        print(f"Peak is a {PRODUCT}x{PRODUCT} float32 matrix product, bandwidth a large copy, both by NumPy.\n")
        _print_table(self.rows, gflops, gbytes)
        if ARGS.json:
            report = {"title": self.title, "machine": machine, "rows": [asdict(row) for row in self.rows]}
            Path(ARGS.json).write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def _take_turns(contenders: Sequence[Contender], repeats: Sequence[int]) -> list[list[float]]:
    """Milliseconds a call, one list a contender; round by round in the order A B C, C B A, A B C ..."""
    samples: list[list[float]] = [[] for _ in contenders]
    end = time.perf_counter() + SECONDS * len(contenders)
    for round_number in range(MOST_ROUNDS):
        if round_number >= ROUNDS and time.perf_counter() > end:
            break
        order = range(len(contenders))
        for i in order if round_number % 2 == 0 else reversed(order):
            time.sleep(PAUSE)
            contenders[i].run()  # wakes its threads, and memory that a virtual machine took back while it lay idle
            start = time.perf_counter()
            for _ in range(repeats[i]):
                contenders[i].run()
            samples[i].append((time.perf_counter() - start) / repeats[i] * 1e3)
    return samples


def _repeats(run: Callable[[], Any]) -> int:
    start = time.perf_counter()
    run()
    return max(1, int(np.ceil(LEAST_SAMPLE / max(time.perf_counter() - start, 1e-7))))


def _error(results: Sequence[Any], reference: Sequence[Any] | None) -> float | None:
    """Largest error of any result, relative to the largest value of its reference."""
    if reference is None:
        return None
    worst = 0.0
    for got, exact in zip(results, reference, strict=True):
        values = np.asarray(got)
        if values.shape != np.shape(exact):
            raise ValueError(f"a result has shape {values.shape}, its reference {np.shape(exact)}")
        gap = np.max(np.abs(values.astype(np.float64) - exact), initial=0.0)
        worst = max(worst, float(gap / max(np.max(np.abs(exact), initial=0.0), 1e-300)))
    return worst


PRODUCT = 2048


def measure_peak() -> tuple[float, float]:
    """GFLOP/s of a large matrix product and GB/s of a large copy: what this machine gives, whatever we do."""
    a = np.ones((PRODUCT, PRODUCT), np.float32)
    out = np.empty_like(a)
    source, target = np.ones(1 << 26, np.float32), np.zeros(1 << 26, np.float32)
    parts = list(zip(np.array_split(target, ARGS.threads), np.array_split(source, ARGS.threads), strict=True))
    with ThreadPoolExecutor(ARGS.threads) as pool:
        product = min(_seconds(lambda: np.matmul(a, a, out=out)) for _ in range(6))
        copy = min(_seconds(lambda: list(pool.map(lambda part: np.copyto(*part), parts))) for _ in range(6))
    return 2 * PRODUCT**3 / product / 1e9, 2 * source.nbytes / copy / 1e9


def _seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def describe_machine(gflops: float, gbytes: float, libraries: dict[str, Any]) -> dict[str, Any]:
    """What was measured on, and with what."""
    versions = {"nstcore": nst.__version__, "numpy": np.__version__}
    for name in (name for name, module in libraries.items() if module is not None):
        versions[name] = getattr(libraries[name], "__version__", None) or _version(name)
    return {
        "cpu": _cpu_name(),
        "isa": nst.get_isa(),
        "threads": ARGS.threads,
        "peak_gflops": round(gflops),
        "bandwidth_gbytes": round(gbytes, 1),
        **versions,
    }


def _version(name: str) -> str:
    try:
        return version(name.replace("_", "-"))
    except PackageNotFoundError:
        return "?"


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _print_table(rows: Sequence[Row], gflops: float, gbytes: float) -> None:
    """One line a contender; "of peak" is the time that peak and bandwidth allow at best, over the median."""
    header = ("work", "by", "median", "min", "spread", "GFLOP/s", "GB/s", "of peak", "error", "time / ours")
    lines = [header]
    for row in rows:
        seconds = row.median_ms / 1e3
        bound = max(row.flops / (gflops * 1e9), row.bytes / (gbytes * 1e9)) / seconds
        lines.append(
            (
                row.work,
                row.contender,
                f"{row.median_ms:.3g} ms",
                f"{row.min_ms:.3g} ms",
                f"{row.spread:.0%}",
                f"{row.flops / seconds / 1e9:.0f}" if row.flops else "",
                f"{row.bytes / seconds / 1e9:.1f}" if row.bytes else "",
                f"{bound:.0%}" if bound else "",
                "" if row.error is None else f"{row.error:.1e}",
                f"{row.ratio:.2f}",
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    before = ""
    for line in lines:
        shown = ("" if line[0] == before else line[0], *line[1:])
        before = line[0]
        cells = [
            cell.ljust(w) if i < 2 else cell.rjust(w) for i, (cell, w) in enumerate(zip(shown, widths, strict=True))
        ]
        print("  ".join(cells).rstrip())
