"""A gallery of 100,000 and of a million photographs: answers, opening, one more: python benchmarks/gallery_bench.py."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import ARGS, Bench, Contender  # first: it sets the threads of all libraries

import numpy as np  # isort: skip

import nstcore as nst

WIDTH, NEIGHBOURS = 128, 5
SIZES = (100_000,) if ARGS.small else (100_000, 1_000_000)
PAGE = 8192  # bytes, as in the file
OPENINGS = 5
SHIPPED = nst.faces.Calibration(0.6, 30.0, -18.0, False, 1, 1, "none: distances of random numbers")


@dataclass(frozen=True)
class Encoder:
    """Stands for an encoder, which takes no part in a search."""

    id: str = "benchmark"
    digest: str = "0" * 64
    size: int = WIDTH
    calibration: Any = field(default=SHIPPED)


def memory() -> float:
    """MB of this process that are in memory now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 1e6


def open_and_search(path: Path, probe: np.ndarray) -> Any:
    """All that stands before the first answer."""
    with nst.faces.Gallery(path, encoder=Encoder(), create=False) as gallery:
        return gallery.search(probe, NEIGHBOURS)


def fill(path: Path, points: np.ndarray) -> None:
    """One photograph a person."""
    start = time.perf_counter()
    with nst.faces.Gallery(path, encoder=Encoder()) as gallery:
        gallery.add_many([f"person {i}" for i in range(len(points))], points)
    seconds = time.perf_counter() - start
    size = path.stat().st_size
    print(f"{len(points):,} people: added in {seconds:.1f} s, file of {size / 1e6:.0f} MB")


def one_more(path: Path, gallery: Any, rng: np.random.Generator) -> None:
    """What a further photograph takes: time, and the pages of the file that differ afterwards."""
    before = np.fromfile(path, np.uint8)
    times = []
    for number in range(5):
        vector = rng.standard_normal(WIDTH, np.float32)
        start = time.perf_counter()
        gallery.add(f"one more {number}", vector)
        times.append(time.perf_counter() - start)
        if number == 0:
            changed = count_changes(before, np.fromfile(path, np.uint8))
    del before
    print(f"  one more photograph: {np.median(times) * 1e3:.1f} ms, {changed} pages of {PAGE} bytes differ in the file")


def count_changes(before: np.ndarray, after: np.ndarray) -> int:
    """Pages that are new or not the same."""
    common = min(len(before), len(after)) // PAGE * PAGE
    pages = (before[:common] != after[:common]).reshape(-1, PAGE).any(axis=1).sum()
    return int(pages) + (len(after) - common) // PAGE


def measure(bench: Bench, folder: Path, count: int) -> None:
    """Everything at one size."""
    rng = np.random.default_rng(0)
    points, probe = rng.standard_normal((count, WIDTH), np.float32), rng.standard_normal((1, WIDTH), np.float32)
    path, faiss = folder / f"{count}.db", bench.libraries["faiss"]
    fill(path, points)
    squares = ((points.astype(np.float64) - probe) ** 2).sum(axis=1)
    exact = np.sort(squares)[:NEIGHBOURS]

    empty = memory()
    gallery = nst.faces.Gallery(path, encoder=Encoder(), create=False)
    gallery.search(probe, NEIGHBOURS)
    print(f"  {memory() - empty:.0f} MB of memory once they are loaded")
    contenders = [
        Contender(
            "nstcore gallery",
            lambda: gallery.search(probe, NEIGHBOURS),
            lambda found: (np.array([hit.distance for hit in found[0]]) ** 2,),
        )
    ]
    if faiss:
        index = faiss.IndexFlatL2(WIDTH)
        index.add(points)
        contenders.append(
            Contender("faiss IndexFlatL2", lambda: index.search(probe, NEIGHBOURS), lambda found: (found[0][0],))
        )
    flops, traffic = 3.0 * count * WIDTH, 4.0 * count * WIDTH
    bench.measure(f"1 probe, {count:,}", contenders, flops=flops, traffic=traffic, reference=(exact,))

    gallery.close()
    ways = {"nstcore gallery": lambda: open_and_search(path, probe)}
    if faiss:
        flat = str(folder / "flat.index")
        faiss.write_index(index, flat)
        ways["faiss read_index"] = lambda: faiss.read_index(flat).search(probe, NEIGHBOURS)
    time_openings(ways)
    with nst.faces.Gallery(path, encoder=Encoder(), create=False) as gallery:
        gallery.search(probe, NEIGHBOURS)
        one_more(path, gallery, rng)
    for file in folder.iterdir():
        os.unlink(file)


def time_openings(ways: dict[str, Any]) -> None:
    """In turns; seconds are too long for as many rounds as `Bench.measure` would take."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(OPENINGS):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    for name, seconds in times.items():
        print(f"  open and first answer, {name}: {np.median(seconds):.2f} s (min {min(seconds):.2f} s)")


def main() -> None:
    bench = Bench("gallery", ("faiss",))
    with tempfile.TemporaryDirectory() as folder:
        for count in SIZES:
            measure(bench, Path(folder), count)
    bench.finish()


if __name__ == "__main__":
    main()
