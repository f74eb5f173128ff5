"""Triplet losses over a whole batch, forward and backward: python benchmarks/triplet_bench.py --help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness import ARGS, FULL, MACHINE, ON_GPU, TINY, Bench, Contender  # first: it sets the threads of all libraries

import numpy as np  # isort: skip

import nstcore as nst
from nstcore.backend.arrays import to_host

WIDTH = 128
PER_CLASS = 4
MARGIN = 0.2
# Mining and batch sizes; NumPy forms every triplet, so it joins up to MOST_NUMPY.
WORK = (("batch_all", 128), ("batch_all", 512), ("batch_hard", 512), ("semi_hard", 512), ("batch_all", 1024))
MOST_NUMPY = 128
SMALL = tuple((mining, 20) for mining in ("batch_all", "batch_hard", "semi_hard"))


def native(z: Any, labels: Any, mining: str) -> tuple[Any, Any]:
    """Our loss, the mean over the active triplets, and its gradient."""
    t = nst.Tensor(z, requires_grad=True)
    loss = nst.ops.batch_triplet_loss(t, labels, margin=MARGIN, mining=mining, reduction="mean_active")
    loss.backward()
    assert t.grad is not None
    return loss.data, t.grad


def reference(z: np.ndarray, labels: np.ndarray, mining: str) -> tuple[np.ndarray, np.ndarray]:
    """The same by the plain reference."""
    with nst.use_backend("reference"):
        return native(z, labels, mining)


def by_metric_learning(libraries: dict[str, Any], mining: str) -> Callable[[Any, Any], Any] | None:
    """pytorch-metric-learning's loss on squared distances with the same reduction, where it has that mining."""
    if libraries["torch"] is None or libraries["pytorch_metric_learning"] is None or mining == "semi_hard":
        return None
    from pytorch_metric_learning import distances, losses, miners, reducers

    distance = distances.LpDistance(normalize_embeddings=False, p=2, power=2)
    loss = losses.TripletMarginLoss(margin=MARGIN, distance=distance, reducer=reducers.AvgNonZeroReducer())
    if mining == "batch_all":
        return lambda z, labels: loss(z, labels)
    miner = miners.BatchHardMiner(distance=distance)
    return lambda z, labels: loss(z, labels, miner(z, labels))


def measure(bench: Bench, mining: str, count: int) -> None:
    """One mining at one batch size. Embeddings are drawn so that some triplets are active and some are not."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(count // PER_CLASS), PER_CLASS)
    centres = rng.standard_normal((count // PER_CLASS, WIDTH))[labels]
    z = (0.6 * centres + rng.standard_normal((count, WIDTH))).astype(np.float32) / np.float32(np.sqrt(WIDTH))
    at, of = MACHINE.place(z), MACHINE.place(labels)
    contenders = [Contender("nstcore", lambda: native(at, of, mining))]
    exact = reference(z.astype(np.float64), labels, mining) if count <= MOST_NUMPY else None
    if count <= MOST_NUMPY and (ARGS.numpy or not ON_GPU):
        name = "numpy on the processor" if ON_GPU else "numpy"
        contenders.append(Contender(name, lambda: reference(z, labels, mining), on_host=ON_GPU))
    if loss := by_metric_learning(bench.libraries, mining):
        torch = bench.libraries["torch"]
        tz, tl = (torch.from_numpy(a).to(MACHINE.torch_device) for a in (z, labels))
        tz.requires_grad_(True)

        def run() -> Any:
            value = loss(tz, tl)
            return value.detach(), torch.autograd.grad(value, tz)[0]

        theirs = tuple(t.cpu().numpy().astype(np.float64) for t in run())
        value, gradient = (to_host(a) for a in native(at, of, mining))
        np.testing.assert_allclose(value, theirs[0], rtol=1e-4)
        np.testing.assert_allclose(gradient, theirs[1], rtol=1e-3, atol=1e-5 * np.abs(theirs[1]).max())
        exact = exact or theirs
        contenders.append(Contender("pytorch-metric-learning", run, lambda r: tuple(t.cpu().numpy() for t in r)))
    # Distances by one symmetric product; the gradient by one product with the coefficients of the pairs, or, where
    # few triplets are chosen, by adding those.
    flops = (3.0 if mining == "batch_all" else 1.0) * count * count * WIDTH
    traffic = 4.0 * (2 * count * WIDTH + 2 * count * count)
    bench.measure(f"{mining}, batch of {count}", contenders, flops=flops, traffic=traffic, reference=exact)


def main() -> None:
    """Measure each mining."""
    bench = Bench("triplet", ["torch", "pytorch_metric_learning"])
    for mining, count in SMALL if TINY else WORK if FULL else WORK[:4]:
        measure(bench, mining, count)
    bench.finish()


if __name__ == "__main__":
    main()
