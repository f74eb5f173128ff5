"""Compiles the CUDA kernels with nvcc and holds registers, shared memory, stack and spills against a committed budget.

Usage: python tools/cuda_resources.py [--write]. Prints what is over the budget and exits with 1 if anything is; with
--write it makes the budget, docs/kernels/cuda_resources.json, and the tables in docs/kernels/cuda.md anew. What nvcc
said is kept in build/cuda by the digest of what it read.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "cuda"
BUDGET = ROOT / "docs" / "kernels" / "cuda_resources.json"
TABLE = ROOT / "docs" / "kernels" / "cuda.md"
ARCHITECTURES = (80, 90, 100, 120)
# As nstcore.backend.cuda.BUILDS; a test holds them equal.
BUILDS = {
    "float32": "-DNST_REAL=float",
    "float64": "-DNST_REAL=double",
    "tf32": "-DNST_REAL=float -DNST_TENSOR_CORES=1",
    "bf16": "-DNST_REAL=float -DNST_TENSOR_CORES=2",
    "tf32x3": "-DNST_REAL=float -DNST_TENSOR_CORES=3",
}
ALLOCATED = 8  # registers of a thread are given out in eights
STATIC_SHARED = 48 * 1024

# Of a multiprocessor: threads, blocks, KiB of shared memory. 64 K registers, and 1 KiB of shared memory a block is the
# system's (CUDA C++ programming guide, technical specifications by compute capability).
MACHINES = {"A100": (80, 2048, 32, 164), "H100, H200": (90, 2048, 32, 228), "RTX 4090": (89, 1536, 24, 100)}
# float32 TFLOP/s without tensor cores and memory GB/s, of the makers' data sheets.
SPEEDS = {"A100": (19.5, 2039), "H100": (66.9, 3350), "H200": (66.9, 4800), "RTX 4090": (82.6, 1008)}

Usage = dict[str, int]
FOUND = re.compile(
    r"Compiling entry function '(\w+)' for 'sm_(\d+)'.*?(\d+) bytes stack frame, (\d+) bytes spill stores, "
    r"(\d+) bytes spill loads.*?Used (\d+) registers(.*?)$",
    re.DOTALL | re.MULTILINE,
)


def files() -> list[Path]:
    return sorted((ROOT / "csrc").glob("*/*_cuda.cu"))


def builds(path: Path) -> list[str]:
    """What a file is compiled as: with tensor cores only where it may use them."""
    return [b for b, flags in BUILDS.items() if "TENSOR" not in flags or "MatrixProduct" in path.read_text("utf-8")]


def compiled(path: Path, build: str, nvcc: str = "nvcc") -> str:
    """What ptxas says about every kernel of a file, for every architecture; `RuntimeError` with what nvcc said."""
    headers = sorted((ROOT / "csrc").rglob("*.cuh"))
    version = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=True).stdout
    read = "\0".join([version, build, str(ARCHITECTURES), *(file.read_text("utf-8") for file in (path, *headers))])
    kept = BUILD / f"{path.stem}-{build}-{hashlib.sha256(read.encode()).hexdigest()[:16]}.txt"
    if kept.exists():
        return kept.read_text("utf-8")
    codes = [f"-gencode=arch=compute_{a},code=sm_{a}" for a in ARCHITECTURES]
    with tempfile.TemporaryDirectory() as folder:
        command = [nvcc, "-std=c++17", *BUILDS[build].split(), "-Werror=all-warnings", *codes, "-fatbin"]
        command += ["-Xptxas=-v", str(path), "-o", f"{folder}/kernels.fatbin"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-4000:])
    BUILD.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkstemp(dir=BUILD)[1])
    part.write_text(done.stderr, "utf-8")
    part.replace(kept)
    return done.stderr


def usage(log: str) -> dict[str, dict[int, Usage]]:
    """By kernel and architecture: registers, bytes of static shared memory, of stack and of spills."""
    found: dict[str, dict[int, Usage]] = {}
    for name, architecture, stack, stores, loads, registers, rest in FOUND.findall(log):
        shared = re.search(r"(\d+) bytes smem", rest)
        found.setdefault(name, {})[int(architecture)] = {
            "registers": int(registers),
            "shared": int(shared[1]) if shared else 0,
            "stack": int(stack),
            "spills": int(stores) + int(loads),
        }
    return found


def measured() -> dict[str, dict[str, dict[int, Usage]]]:
    """By build, kernel and architecture."""
    return {
        build: {
            name: by for path in files() if build in builds(path) for name, by in usage(compiled(path, build)).items()
        }
        for build in BUILDS
    }


def budget_of(found: dict[str, dict[str, dict[int, Usage]]]) -> dict[str, dict[str, Usage]]:
    """The most of any architecture, registers as they are given out."""
    return {
        dtype: {
            name: {
                "registers": -(-max(u["registers"] for u in by.values()) // ALLOCATED) * ALLOCATED,
                "shared": max(u["shared"] for u in by.values()),
            }
            for name, by in sorted(kernels.items())
        }
        for dtype, kernels in found.items()
    }


def offences(found: dict[str, dict[str, dict[int, Usage]]], budget: dict[str, Any]) -> Iterator[str]:
    """One line for each kernel that is over its budget, spills, has a stack, or is missing on either side."""
    for dtype, kernels in found.items():
        for name in sorted({*kernels, *budget[dtype]}):
            if name not in kernels or name not in budget[dtype]:
                yield f"{name} {dtype}: only in the {'budget' if name not in kernels else 'sources'}"
                continue
            allowed = budget[dtype][name]
            for architecture in ARCHITECTURES:
                used = kernels[name].get(architecture)
                if used is None:
                    yield f"{name} {dtype}: not compiled for sm_{architecture}"
                    continue
                limits = {"registers": allowed["registers"], "shared": allowed["shared"], "stack": 0, "spills": 0}
                for what, limit in limits.items():
                    if used[what] > limit:
                        yield f"{name} {dtype} sm_{architecture}: {what} {used[what]}, at most {limit}"


def occupancy(registers: int, shared: int, threads: int, machine: str) -> tuple[int, str]:
    """Per cent of a multiprocessor's threads that are there at once, and what allows no more."""
    _, most_threads, most_blocks, kib = MACHINES[machine]
    warps = threads // 32
    of_warp = -(-registers * 32 // 256) * 256  # registers are given to a warp in 256s, by each of four schedulers
    limits = {
        "threads": most_threads // threads,
        "blocks": most_blocks,
        "registers": 4 * (65536 // 4 // of_warp) // warps,
        "shared memory": kib * 1024 // (-(-(shared + 1024) // 128) * 128),
    }
    least = min(limits, key=lambda name: limits[name])
    return round(100 * limits[least] * threads / most_threads), least


def tables(budget: dict[str, dict[str, Usage]], threads: dict[str, int]) -> str:
    """The occupancy of every kernel, in Markdown."""
    head = f"| kernel | build | registers | shared | {' | '.join(MACHINES)} | limit |\n|---|---|" + "---|" * (
        3 + len(MACHINES)
    )
    rows = []
    for name in budget["float32"]:
        for build in (build for build in BUILDS if name in budget[build]):
            used = budget[build][name]
            found = [occupancy(used["registers"], used["shared"], threads[name], machine) for machine in MACHINES]
            shown = " | ".join(f"{percent} %" for percent, _ in found)
            rows.append(f"| `{name}` | {build} | {used['registers']} | {used['shared']} | {shown} | {found[0][1]} |")
    return "\n".join([head, *rows])


def roofline() -> str:
    """The least time of the ops at sizes of a real run, from their records and the makers' figures, in Markdown."""
    from nstcore.ops import OPS

    shapes = {
        "conv2d": ((1, 256, 256, 128), (128, 3, 3, 128), (128,)),
        "gram": ((1, 512, 512, 64),),
        "max_pool2d": ((1, 512, 512, 64),),
        "pairwise_sqdist": ((4096, 128), (4096, 128)),
        "nearest": ((64, 128), (1_000_000, 128)),
        "batch_triplet_loss": ((1024, 128), (1024,)),
        "content_loss": ((1, 64, 64, 512),) * 2,
    }
    params: dict[str, dict[str, Any]] = {"conv2d": {"padding": 1}, "max_pool2d": {"size": 2}, "nearest": {"k": 5}}
    rows = [f"| op | shapes | flop / byte | {' | '.join(SPEEDS)} |", "|---|---|" + "---|" * (1 + len(SPEEDS))]
    for label, given in {**shapes, "conv2d by F(2×2, 3×3)": shapes["conv2d"]}.items():
        name = label.split(" ")[0]
        op, more = OPS[name], params.get(name, {})
        assert op.flops is not None
        assert op.traffic is not None
        flops, traffic = op.flops(*given, **more), 4 * op.traffic(*given, **more)
        if label != name:  # 16 products for 36, and the transformed weights are written and read
            flops, traffic = flops * 16 / 36, traffic + 4 * 2 * math.prod(given[1]) * 16 / 9
        times = []
        for tera, giga in SPEEDS.values():
            computing, moving = flops / tera / 1e6, traffic / giga / 1e3
            times.append(f"{max(computing, moving):.0f} µs ({'arithmetic' if computing > moving else 'memory'})")
        sizes = ", ".join("×".join(map(str, shape)) for shape in given)
        rows.append(f"| `{name}`{label[len(name) :]} | {sizes} | {flops / traffic:.1f} | {' | '.join(times)} |")
    return "\n".join(rows)


def threads_of_kernels() -> dict[str, int]:
    """Threads of a block, from the tables of launches."""
    from importlib import import_module

    from nstcore.backend.cuda import Family

    modules = [import_module(f"nstcore.backend.{p.stem}") for p in (ROOT / "nstcore/backend").glob("cuda_*.py")]
    tables_ = [value for module in modules for value in vars(module).values() if isinstance(value, Family)]
    return {name: launch.threads for table in tables_ for name, launch in table.launches.items()}


def write_tables(budget: dict[str, dict[str, Usage]]) -> None:
    """Put the tables between their marks in the document."""
    text = TABLE.read_text("utf-8")
    for mark, table in (("occupancy", tables(budget, threads_of_kernels())), ("roofline", roofline())):
        text = re.sub(
            rf"(<!-- {mark} -->\n).*?(\n<!-- end -->)", lambda m, t=table: m[1] + t + m[2], text, flags=re.DOTALL
        )
    TABLE.write_text(text, "utf-8")


def main(arguments: list[str]) -> int:
    """Compile and compare; 1 if anything is over the budget."""
    if shutil.which("nvcc") is None:
        print("nvcc is not installed")
        return 1
    found = measured()
    if "--write" in arguments:
        BUDGET.write_text(json.dumps(budget_of(found), indent=1) + "\n", "utf-8")
        write_tables(budget_of(found))
    lines = list(offences(found, json.loads(BUDGET.read_text("utf-8"))))
    for line in lines:
        print(line)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
