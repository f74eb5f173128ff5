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
# The files whose work is that of CUDA kernels; they alone know small sizes, too, on which the emulator can run them.
ON_DEVICES = ("conv_bench", "gram_bench", "pairwise_bench", "style_bench", "triplet_bench")
PRECISIONS = ("float32", "tf32", "tf32x3", "bf16")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    name = Path(sys.argv[0]).stem
    profiles = ("fast", "full", "tiny") if name in ON_DEVICES else ("fast", "full")
    parser.add_argument("--profile", choices=profiles, default="fast", help="fewer shapes and rounds, all, or small")
    parser.set_defaults(backend="cpu", precision="float32", numpy=False)
    if name in ON_DEVICES:
        parser.add_argument("--backend", choices=("cpu", "cuda"), help="where nstcore and its competitors compute")
        parser.add_argument("--precision", choices=PRECISIONS, help="of products of float32 on a GPU, and of PyTorch's")
        parser.add_argument("--numpy", action="store_true", help="beside a GPU also NumPy on the processor")
    parser.add_argument("--threads", type=int, default=2, help="threads for every competitor")
    parser.add_argument("--isa", choices=("base", "avx2", "avx512"), help="hold every competitor to this set")
    parser.add_argument("--json", metavar="FILE", help="also write the table and the machine to this file")
    for option, what in EXTRA.get(name, {}).items():
        parser.add_argument(option, action="store_true", help=what)
    arguments = parser.parse_args()
    if arguments.backend == "cpu" and (arguments.precision != "float32" or arguments.numpy):
        parser.error("--precision and --numpy go with --backend cuda")
    return arguments


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
ON_GPU = ARGS.backend == "cuda"
if ON_GPU:
    emulated = os.environ.get("NSTCORE_BACKEND") == "cuda-on-cpu"
    os.environ["NSTCORE_BACKEND"] = "cuda-on-cpu" if emulated else "cuda"
    os.environ["NSTCORE_PRECISION"] = ARGS.precision
if ARGS.isa:
    os.environ["NSTCORE_ISA"] = ARGS.isa
    os.environ["FAISS_OPT_LEVEL"] = {"base": "generic", "avx2": "avx2"}.get(ARGS.isa, "avx512")

import json  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable, Sequence  # noqa: E402
from dataclasses import asdict, dataclass, field  # noqa: E402
from importlib import import_module  # noqa: E402
from importlib.metadata import PackageNotFoundError, version  # noqa: E402
from typing import Any  # noqa: E402

import numpy as np  # noqa: E402
from machines import Device, Processor  # noqa: E402

import nstcore as nst  # noqa: E402
from nstcore.backend.arrays import to_host  # noqa: E402
from nstcore.errors import BackendUnavailable  # noqa: E402

FULL, TINY = ARGS.profile == "full", ARGS.profile == "tiny"
# At least so many rounds, and about so long, for each piece of work.
ROUNDS, SECONDS = {"full": (9, 4.0), "fast": (5, 1.5), "tiny": (1, 0.0)}[ARGS.profile]
MOST_ROUNDS = 200


def _machine() -> Any:
    if not ON_GPU:
        return Processor(ARGS.threads, TINY)
    try:
        return Device(os.environ["NSTCORE_BACKEND"], ARGS.precision, TINY)
    except BackendUnavailable as error:
        raise SystemExit(f"{Path(sys.argv[0]).stem}: {error}") from None


MACHINE = _machine()


@dataclass(frozen=True)
class Contender:
    """A way to do the work. `result` turns what `run` returns into the arrays that the reference is compared with."""

    name: str
    run: Callable[[], Any]
    result: Callable[[Any], Sequence[Any]] = lambda value: value if isinstance(value, tuple) else (value,)
    on_host: bool = False  # computes on the processor, where the others do on a GPU


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
        module.backends.cudnn.benchmark = True  # chooses its algorithm in the warm-up
        module.backends.cudnn.allow_tf32 = module.backends.cuda.matmul.allow_tf32 = ARGS.precision == "tf32"
    if name == "faiss":
        module.omp_set_num_threads(ARGS.threads)
    return module


class Bench:
    """Collects the rows of one benchmark file, then prints and writes them."""

    def __init__(self, title: str, libraries: Sequence[str] = ()) -> None:
        self.title = title
        self.rows: list[Row] = []
        self.libraries: dict[str, Any] = dict.fromkeys(libraries)
        if MACHINE.note:
            print(MACHINE.note)
        else:  # beside the emulator they would compute on the processor
            self.libraries = {name: optional(name) for name in libraries}
        missing = [name for name, module in self.libraries.items() if module is None and not MACHINE.note]
        torch = self.libraries.get("torch")
        if ON_GPU and torch and not torch.cuda.is_available():
            print("this PyTorch has no CUDA, so not compared")
            self.libraries["torch"] = None
        self.peaks = [MACHINE.peak()]
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
        repeats = [MACHINE.repeats(c.run) for c in contenders]
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
        self.peaks.append(MACHINE.peak())
        gflops, gbytes = (max(peak[i] for peak in self.peaks) for i in (0, 1))
        machine = describe_machine(gflops, gbytes, self.libraries)
        print(f"\n{self.title}: {', '.join(f'{key} {value}' for key, value in machine.items())}")
        side, by = MACHINE.product, MACHINE.by
        print(f"Peak is a {side}x{side} float32 matrix product, bandwidth a large copy, both by {by}.\n")
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
            samples[i].append(MACHINE.sample(contenders[i].run, repeats[i], contenders[i].on_host))
    return samples


def _error(results: Sequence[Any], reference: Sequence[Any] | None) -> float | None:
    """Largest error of any result, relative to the largest value of its reference."""
    if reference is None:
        return None
    worst = 0.0
    for got, exact in zip(results, reference, strict=True):
        values = to_host(got)
        if values.shape != np.shape(exact):
            raise ValueError(f"a result has shape {values.shape}, its reference {np.shape(exact)}")
        gap = np.max(np.abs(values.astype(np.float64) - exact), initial=0.0)
        worst = max(worst, float(gap / max(np.max(np.abs(exact), initial=0.0), 1e-300)))
    return worst


def describe_machine(gflops: float, gbytes: float, libraries: dict[str, Any]) -> dict[str, Any]:
    """What was measured on, and with what."""
    versions = {"nstcore": nst.__version__, "numpy": np.__version__}
    for name in (name for name, module in libraries.items() if module is not None):
        versions[name] = getattr(libraries[name], "__version__", None) or _version(name)
    return {
        **MACHINE.describe(),
        "peak_gflops": round(gflops),
        "bandwidth_gbytes": round(gbytes, 1),
        **versions,
    }


def _version(name: str) -> str:
    try:
        return version(name.replace("_", "-"))
    except PackageNotFoundError:
        return "?"


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
