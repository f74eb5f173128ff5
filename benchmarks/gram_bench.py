"""Gram matrices of the feature maps of VGG-16 for a 512-pixel picture: python benchmarks/gram_bench.py --help."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness import ARGS, FULL, MACHINE, ON_GPU, TINY, Bench, Contender  # first: it sets the threads of all libraries

import numpy as np  # isort: skip

import nstcore as nst
from nstcore.backend.memory import reuse
from nstcore.ops import OPS

# Side and channels after conv1_1, conv2_1, conv3_1, conv4_1 and conv5_1.
SHAPES = ((512, 64), (256, 128), (128, 256), (64, 512), (32, 512))
SMALL = ((9, 66),)


def native(x: Any, d: Any) -> tuple[Any, Any]:
    """Our Gram matrix and its gradient."""
    t = nst.Tensor(x, requires_grad=True)
    g = nst.ops.gram(t)
    g.backward(d)
    assert t.grad is not None
    return g.data, t.grad


def numpy_forward(x: Any) -> Any:
    """One product, by NumPy or on a GPU by CuPy."""
    f = x.reshape(-1, x.shape[-1])
    return (f.T @ f)[None]


def numpy_both(x: Any, d: Any) -> tuple[Any, Any]:
    """The Gram matrix and its gradient."""
    f = x.reshape(-1, x.shape[-1])
    return (f.T @ f)[None], (f @ (d[0] + d[0].T)).reshape(x.shape)


def by_torch(torch: Any, x: np.ndarray, d: np.ndarray) -> dict[str, tuple[Callable[[], Any], Callable[[], Any]]]:
    """Forward, and forward with backward, in the layouts that PyTorch may hold a feature map in."""
    seed = torch.from_numpy(d[0]).to(MACHINE.torch_device)

    def pair(f: Any, product: Callable[[Any], Any]) -> tuple[Callable[[], Any], Callable[[], Any]]:
        f.requires_grad_(True)

        def forward() -> Any:
            with torch.no_grad():
                return product(f)

        def both() -> Any:
            g = product(f)
            return g.detach(), torch.autograd.grad(g, f, seed)[0]

        return forward, both

    rows = torch.from_numpy(x).to(MACHINE.torch_device).reshape(-1, x.shape[-1])
    return {
        "torch (hw, c)": pair(rows.clone(), lambda f: f.T @ f),
        "torch (c, hw)": pair(rows.T.contiguous(), lambda f: f @ f.T),
    }


def measure(bench: Bench, side: int, channels: int) -> None:
    """Forward alone, and forward with backward, of one feature map."""
    torch, cost = bench.libraries["torch"], OPS["gram"]
    assert cost.flops is not None
    assert cost.traffic is not None
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, side, side, channels)).astype(np.float32)
    d = rng.standard_normal((1, channels, channels)).astype(np.float32)
    exact = numpy_both(x.astype(np.float64), d.astype(np.float64))
    at, by = MACHINE.place(x), MACHINE.place(d)
    forward = [Contender("nstcore", lambda: nst.ops.gram(at)), Contender(MACHINE.plain, lambda: numpy_forward(at))]
    both = [Contender("nstcore", lambda: native(at, by)), Contender(MACHINE.plain, lambda: numpy_both(at, by))]
    if ARGS.numpy:
        forward.append(Contender("numpy on the processor", lambda: numpy_forward(x), on_host=True))
        both.append(Contender("numpy on the processor", lambda: numpy_both(x, d), on_host=True))
    for name, (run_forward, run_both) in by_torch(torch, x, d).items() if torch else ():
        forward.append(Contender(name, run_forward, lambda g: (g.cpu().numpy()[None],)))
        flip = (lambda t: t.cpu().numpy().T) if name == "torch (c, hw)" else (lambda t: t.cpu().numpy())
        both.append(Contender(name, run_both, lambda r, f=flip: (r[0].cpu().numpy()[None], f(r[1]).reshape(x.shape))))
    flops, traffic = cost.flops(x.shape), 4 * cost.traffic(x.shape)
    where = f"{channels} channels at {side}x{side}"
    bench.measure(f"forward, {where}", forward, flops=flops, traffic=traffic, reference=exact[:1])
    # The gradient is a full product with a symmetric matrix, and reads and writes the map once more.
    back = 2.0 * side * side * channels * channels
    bench.measure(f"both, {where}", both, flops=flops + back, traffic=3 * traffic, reference=exact)


def main() -> None:
    """Measure the feature map of each style layer."""
    bench = Bench("gram", ["torch"])
    for side, channels in SMALL if TINY else SHAPES if FULL or ON_GPU else SHAPES[:4]:
        measure(bench, side, channels)
    bench.finish()


if __name__ == "__main__":
    with reuse():  # as in a style transfer
        main()
