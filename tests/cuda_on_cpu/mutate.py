"""Changes the CUDA kernels one place at a time, and says which changes no case of the records notices.

Usage: PYTHONPATH=tests python -m cuda_on_cpu.mutate [family ...] [--sample N]. A mutant is killed by the compiler, by
what the checker finds, by a result that is off, or by not ending. Prints the survivors and, after the table of kills,
exits with 1 if one is not explained in ``survivors.txt``: there, each line is ``file: text of the line -> change``
followed by why it is equivalent.
"""

from __future__ import annotations

import argparse
import random
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from . import build

EXPLAINED = Path(__file__).with_name("survivors.txt")
# What the names of the tests have in them that run the kernels of a file.
TESTED = {
    "conv_cuda.cu": ("conv2d", "Relu"),
    "slope_cuda.cuh": ("conv2d", "Relu"),
    "winograd_cuda.cu": ("winograd",),
    "gram_cuda.cu": ("gram", "style_loss", "one_input"),
    "pool_cuda.cu": ("pool",),
    "style_cuda.cu": ("content_loss", "total_variation", "normalize", "one_input"),
    "pairwise_cuda.cu": ("pairwise", "Distances", "cosine"),
    "rows_cuda.cuh": ("sqdist", "nearest"),
    "nearest_cuda.cu": ("nearest",),
    "triplet_cuda.cu": ("triplet",),
    "mining_cuda.cuh": ("batch_triplet", "Triplets"),
    "cuda_differences.cuh": ("sqdist",),
    "cuda_sums.cuh": ("style_loss", "content_loss", "triplet"),
    "cuda_tensor_cores.cuh": ("in_its_place", "as_exact_as"),
    "cuda_tile.cuh": ("gram", "inner"),
    "cuda_types.cuh": ("pool", "content_loss"),
}

CHANGES = (
    (r"__syncthreads\(\);", ";"),
    (r"__syncwarp\(\);", ";"),
    (r"(?<=[\w\)\]]) < (?=[\w\(])", " <= "),
    (r"(?<=[\w\)\]]) >= (?=[\w\(])", " > "),
    (r" && [\w\.\[\] +*\-]+(?:<|>|>=|<=|==|!=) [\w\.]+(?=[\)\; ])", ""),
    (r"\+= (\w+_threads|lanes|mining_warps|rows)\b", r"+= 2 * \1"),
    (r"= lanes / 2;", "= lanes / 4;"),
    (r"\bcount - 1\b|\bk - 1\b", "0"),
    (r"\* tile_share \+ [ij]\b", "* tile_share"),
    (r"atomicAdd\(&([^,]+), ([^;]+)\);", r"\1 += \2;"),
    (r"(?<=[\w\)\]]) \+ (?=[\w\(]+(\(|\[|\.)\w+)", " - "),
)


@dataclass(frozen=True)
class Mutant:
    """One change of one file."""

    file: Path
    start: int
    end: int
    text: str

    @property
    def number(self) -> int:
        """Of the line."""
        return self.file.read_text("utf-8").count("\n", 0, self.start) + 1

    def __str__(self) -> str:
        source = self.file.read_text("utf-8")
        line = source.split("\n")[self.number - 1].strip()
        return (
            f"{self.file.name}: {line} -> {source[self.start : self.end].strip()} => {self.text.strip() or 'nothing'}"
        )


def mutants(files: list[Path]) -> Iterator[Mutant]:
    """Every change of every file, outside of comments."""
    for file in files:
        source = file.read_text("utf-8")
        for pattern, replacement in CHANGES:
            for match in re.finditer(pattern, source):
                line = source[source.rfind("\n", 0, match.start()) + 1 : match.start()]
                if "//" not in line and "#" not in line:
                    yield Mutant(file, match.start(), match.end(), match.expand(replacement))


def run(mutant: Mutant) -> str:
    """What kills it, or an empty string."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "csrc"
        for source in (p for p in (build.ROOT / "csrc").rglob("*.cu*")):
            target = copy / source.relative_to(build.ROOT / "csrc")
            target.parent.mkdir(parents=True, exist_ok=True)
            text = source.read_text("utf-8")
            if source == mutant.file:
                text = text[: mutant.start] + mutant.text + text[mutant.end :]
            target.write_text(text, "utf-8")
        command = [sys.executable, "-m", "cuda_on_cpu.mutated", str(copy), *TESTED[mutant.file.name]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode in (-signal.SIGXCPU, -signal.SIGKILL):
            return "time"
        return done.stdout.strip().split("\n")[-1] if done.returncode == 0 else "crash"


def told(mutant: Mutant) -> str:
    """As `run`, and shown at once: a whole run takes hours."""
    fate = run(mutant)
    print(f"{fate or 'ALIVE'}: {mutant}", file=sys.stderr, flush=True)
    return fate


def explained() -> str:
    return EXPLAINED.read_text("utf-8") if EXPLAINED.exists() else ""


def main() -> int:
    """Run the mutants; 1 if one survives that nobody has explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", help="folders of csrc; all by default")
    parser.add_argument("--sample", type=int, default=0, help="only so many mutants, chosen at random by a fixed seed")
    arguments = parser.parse_args()
    files = sorted((build.ROOT / "csrc").rglob("*.cu*"))
    chosen = list(mutants([f for f in files if not arguments.families or f.parent.name in arguments.families]))
    if arguments.sample:
        chosen = random.Random(0).sample(chosen, min(arguments.sample, len(chosen)))
    for file in sorted({mutant.file for mutant in chosen}):
        if fate := run(Mutant(file, 0, 0, "")):
            print(f"{file.name}: the tests chosen for it fail without a change: {fate}")
            return 1
    with ThreadPoolExecutor(2) as pool:
        fates = list(pool.map(told, chosen))
    print(f"{len(chosen)} mutants: " + ", ".join(f"{n} {fate or 'alive'}" for fate, n in Counter(fates).most_common()))
    alive = [mutant for mutant, fate in zip(chosen, fates, strict=True) if not fate]
    unexplained = [mutant for mutant in alive if str(mutant) not in explained()]
    for mutant in alive:
        print(f"{'' if mutant in unexplained else 'explained: '}{mutant}  (line {mutant.number})")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main())
