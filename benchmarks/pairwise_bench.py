"""Squared distances and exact nearest neighbours of 128-d encodings: python benchmarks/pairwise_bench.py --help."""

from __future__ import annotations

from typing import Any

from harness import ARGS, FULL, MACHINE, ON_GPU, TINY, Bench, Contender  # first: it sets the threads of all libraries

import numpy as np  # isort: skip

import nstcore as nst
from nstcore.backend.arrays import to_host

WIDTH = 128
NEIGHBOURS = 5
DISTANCES = ((512, 512), (1024, 1024), (64, 100_000))
# Queries and gallery; the last gallery alone takes half a gigabyte.
SEARCHES = ((64, 100_000), (1024, 100_000), (1, 1_000_000))
SMALL = (66, 1030)


def numpy_distances(a: Any, b: Any) -> Any:
    """|a|^2 - 2 a b + |b|^2, at least 0."""
    squares = (a * a).sum(1)[:, None] + (b * b).sum(1)
    return np.maximum(squares - 2 * (a @ b.T), 0)


def numpy_nearest(queries: Any, points: Any) -> tuple[Any, Any]:
    """All distances, then a partition of each row."""
    squares = numpy_distances(queries, points)
    some = np.argpartition(squares, NEIGHBOURS - 1, axis=1)[:, :NEIGHBOURS]
    values = np.take_along_axis(squares, some, 1)
    order = np.argsort(values, axis=1)
    return np.take_along_axis(values, order, 1), np.take_along_axis(some, order, 1)


def exact_distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums of squared differences in float64, row by row."""
    return np.stack([((row - b) ** 2).sum(1) for row in a.astype(np.float64)])


def draw(n: int, m: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.standard_normal((n, WIDTH), np.float32), rng.standard_normal((m, WIDTH), np.float32)


def measure_distances(bench: Bench, n: int, m: int) -> None:
    """The whole matrix of squared distances."""
    a, b = draw(n, m)
    x, y = MACHINE.place(a), MACHINE.place(b)
    contenders = [
        Contender("nstcore", lambda: nst.ops.pairwise_sqdist(x, y)),
        Contender(MACHINE.plain, lambda: numpy_distances(x, y)),
    ]
    if ARGS.numpy:
        contenders.append(Contender("numpy on the processor", lambda: numpy_distances(a, b), on_host=True))
    if torch := bench.libraries["torch"]:
        ta, tb = (torch.from_numpy(rows).to(MACHINE.torch_device) for rows in (a, b))
        mode = "use_mm_for_euclid_dist"

        def by_torch() -> Any:
            return torch.cdist(ta, tb, compute_mode=mode).square_()

        contenders.append(Contender("torch cdist", by_torch, lambda t: (t.cpu().numpy(),)))
    bench.measure(
        f"distances {n} x {m}",
        contenders,
        flops=2.0 * n * m * WIDTH,
        traffic=4.0 * (n * m + (n + m) * WIDTH),
        reference=(exact_distances(a, b),),
    )


def measure_similar(bench: Bench, n: int, m: int, metric: str) -> None:
    """The five most similar points of each query, by inner product or cosine."""
    queries, points = draw(n, m)
    x, y = MACHINE.place(queries), MACHINE.place(points)
    contenders = [Contender("nstcore", lambda: nst.ops.nearest(x, y, NEIGHBOURS, metric=metric), lambda r: r[:1])]

    def unit(rows: np.ndarray) -> np.ndarray:
        return rows / np.linalg.norm(rows, axis=1, keepdims=True) if metric == "cosine" else rows

    if faiss := bench.libraries.get("faiss"):
        index = faiss.IndexFlatIP(WIDTH)
        index.add(unit(points))  # outside the timing, as its users do
        contenders.append(Contender("faiss flat", lambda: index.search(unit(queries), NEIGHBOURS), lambda r: r[:1]))
    similar = unit(queries.astype(np.float64)) @ unit(points.astype(np.float64)).T
    bench.measure(
        f"{metric}, {NEIGHBOURS} of {m:,} for {n}",
        contenders,
        flops=2.0 * n * m * WIDTH,
        traffic=4.0 * (n + m) * WIDTH,
        reference=(-np.sort(-similar, axis=1)[:, :NEIGHBOURS],),
    )


def measure_search(bench: Bench, n: int, m: int) -> None:
    """The five nearest points of each query; the reference checks their distances."""
    queries, points = draw(n, m)
    x, y = MACHINE.place(queries), MACHINE.place(points)
    contenders = [
        Contender("nstcore", lambda: nst.ops.nearest(x, y, NEIGHBOURS), lambda r: r[:1]),
        Contender(MACHINE.plain, lambda: numpy_nearest(x, y), lambda r: r[:1]),
    ]
    if ARGS.numpy:
        by_numpy = Contender("numpy on the processor", lambda: numpy_nearest(queries, points), lambda r: r[:1], True)
        contenders.append(by_numpy)
    if faiss := bench.libraries.get("faiss"):
        index = faiss.IndexFlatL2(WIDTH)
        index.add(points)
        contenders.append(Contender("faiss flat", lambda: index.search(queries, NEIGHBOURS), lambda r: r[:1]))
    if torch := bench.libraries["torch"]:
        tq, tp = (torch.from_numpy(rows).to(MACHINE.torch_device) for rows in (queries, points))
        squares = tp.square().sum(1)

        def by_torch() -> Any:
            partial = torch.addmm(squares, tq, tp.T, alpha=-2)
            values, where = partial.topk(NEIGHBOURS, largest=False)
            return values + tq.square().sum(1, keepdim=True), where

        contenders.append(Contender("torch addmm + topk", by_torch, lambda r: (r[0].cpu().numpy(),)))
    exact = np.stack([np.sort(exact_distances(q[None], points)[0])[:NEIGHBOURS] for q in queries[:64]])
    trimmed = [
        Contender(c.name, c.run, lambda r, f=c.result: tuple(to_host(part)[:64] for part in f(r)), c.on_host)
        for c in contenders
    ]
    bench.measure(
        f"nearest {NEIGHBOURS} of {m:,} for {n}",
        trimmed,
        flops=2.0 * n * m * WIDTH,
        traffic=4.0 * (n + m) * WIDTH,
        reference=(exact,),
    )


def main() -> None:
    """Measure distances, then searches by each metric."""
    bench = Bench("pairwise", ["torch"] if ON_GPU else ["torch", "faiss"])  # faiss-cpu is the processor's alone
    for n, m in [SMALL] if TINY else DISTANCES if FULL else DISTANCES[1:]:
        measure_distances(bench, n, m)
    for n, m in [SMALL] if TINY else SEARCHES if FULL else SEARCHES[:1]:
        measure_search(bench, n, m)
    for metric in ("inner", "cosine"):
        measure_similar(bench, *(SMALL if TINY else SEARCHES[0]), metric)
    bench.finish()


if __name__ == "__main__":
    main()
