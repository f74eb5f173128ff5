"""Convolutions of VGG-16 at 512 pixels and of a face encoder: python benchmarks/conv_bench.py --help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from harness import ARGS, FULL, MACHINE, ON_GPU, TINY, Bench, Contender  # first: it sets the threads of all libraries

import numpy as np  # isort: skip

import nstcore as nst
from nstcore.backend.memory import reuse
from nstcore.ops import OPS


@dataclass(frozen=True)
class Layer:
    """A convolution of one picture; padding keeps the size of a 3x3 one."""

    channels: int
    filters: int
    side: int
    kernel: int = 3
    stride: int = 1

    @property
    def padding(self) -> int:
        """Of VGG's layers; the strided first layer of the encoder has none."""
        return self.kernel // 2 if self.stride == 1 else 0

    def __str__(self) -> str:
        stride = f"/{self.stride}" if self.stride > 1 else ""
        return f"{self.kernel}x{self.kernel}{stride} {self.channels}->{self.filters} at {self.side}"


LAYERS = (
    Layer(64, 64, 512), Layer(64, 128, 256), Layer(128, 128, 256), Layer(128, 256, 128), Layer(256, 256, 128),
    Layer(256, 512, 64), Layer(512, 512, 64), Layer(512, 512, 32),
)  # fmt: skip
OTHERS = (Layer(3, 64, 512), Layer(256, 256, 64, kernel=1), Layer(64, 128, 128, stride=2), Layer(3, 32, 150, 7, 2))
FAST = (LAYERS[2], LAYERS[4], LAYERS[6], OTHERS[0])
SMALL = (Layer(5, 66, 9), Layer(3, 8, 11, 7, 2))


@dataclass(frozen=True)
class Sample:
    """Arrays of one layer: picture, weights, gradient of the result."""

    layer: Layer
    x: Any
    w: Any
    dy: Any

    @classmethod
    def of(cls, layer: Layer) -> Sample:
        """Random arrays; the weights scaled so that results are about 1."""
        rng = np.random.default_rng(0)
        depth = layer.kernel**2 * layer.channels
        x = rng.standard_normal((1, layer.side, layer.side, layer.channels), np.float32)
        w = rng.standard_normal((layer.filters, layer.kernel, layer.kernel, layer.channels), np.float32)
        side = (layer.side + 2 * layer.padding - layer.kernel) // layer.stride + 1
        dy = rng.standard_normal((1, side, side, layer.filters), np.float32)
        return cls(layer, x, w / np.sqrt(np.float32(depth)), dy)

    def placed(self) -> Sample:
        """The same where the work is done."""
        return Sample(self.layer, *(MACHINE.place(a) for a in (self.x, self.w, self.dy)))

    def forward(self, dtype: str = "float32") -> Any:
        """The result of our convolution."""
        x, w = self.x.astype(dtype, copy=False), self.w.astype(dtype, copy=False)
        return nst.ops.conv2d(x, w, stride=self.layer.stride, padding=self.layer.padding)

    def taped(self, dtype: str = "float32") -> tuple[nst.Tensor, nst.Tensor]:
        """Input and result of our convolution, ready for backward; the weights are frozen."""
        x = nst.tensor(self.x, requires_grad=True, dtype=dtype)
        w = self.w.astype(dtype, copy=False)
        return x, nst.ops.conv2d(x, w, stride=self.layer.stride, padding=self.layer.padding)

    def reference(self) -> tuple[np.ndarray, np.ndarray]:
        """Result and gradient of the input, by the plain reference in float64."""
        with nst.use_backend("reference"):
            x, y = self.taped("float64")
            y.backward(self.dy)
        assert x.grad is not None
        return y.data, x.grad


def input_gradient(x: nst.Tensor, y: nst.Tensor, dy: Any) -> Any:
    """Gradient of the input; the tape is kept for the next time."""
    x.zero_grad()
    y.backward(dy, retain_graph=True)
    assert x.grad is not None
    return x.grad


def by_numpy(sample: Sample) -> tuple[Contender, Contender]:
    """The plain reference in float32: one matrix product a tap."""
    with nst.use_backend("reference"):
        x, y = sample.taped()

    def forward() -> Any:
        with nst.use_backend("reference"):
            return sample.forward()

    name = "numpy on the processor" if ON_GPU else "numpy"
    backward = Contender(name, lambda: input_gradient(x, y, sample.dy), on_host=ON_GPU)
    return Contender(name, forward, on_host=ON_GPU), backward


def by_cupy(sample: Sample) -> tuple[Contender, Contender]:
    """One matrix product a tap, by CuPy: it has no convolution of its own."""
    layer = sample.layer
    x, w, dy = np.pad(sample.x, ((0, 0), *[(layer.padding, layer.padding)] * 2, (0, 0))), sample.w, sample.dy
    last = [(size - 1) * layer.stride + 1 for size in dy.shape[1:3]]
    taps = [
        (r, s, (slice(None), slice(r, r + last[0], layer.stride), slice(s, s + last[1], layer.stride)))
        for r in range(layer.kernel)
        for s in range(layer.kernel)
    ]

    def forward() -> Any:
        return sum((x[window] @ w[:, r, s].T for r, s, window in taps[1:]), x[taps[0][2]] @ w[:, 0, 0].T)

    def backward() -> Any:
        dx = np.zeros_like(x)
        for r, s, window in taps:
            dx[window] += dy @ w[:, r, s]
        inside = slice(layer.padding, layer.padding + layer.side)
        return dx[:, inside, inside]

    return Contender("cupy, by taps", forward), Contender("cupy, by taps", backward)


def by_torch(torch: Any, sample: Sample, memory_format: Any, name: str) -> tuple[Contender, Contender]:
    """PyTorch's convolution with arrays laid out as `memory_format`; its bf16 is of arrays of that type."""
    layer, rounded = sample.layer, ARGS.precision == "bf16"

    def convert(a: np.ndarray) -> Any:
        placed = torch.from_numpy(a).to(MACHINE.torch_device, torch.bfloat16 if rounded else torch.float32)
        return placed.permute(0, 3, 1, 2).contiguous(memory_format=memory_format)

    x, w, dy = convert(sample.x), convert(sample.w), convert(sample.dy)
    x.requires_grad_(True)
    conv = torch.nn.functional.conv2d
    y = conv(x, w, stride=layer.stride, padding=layer.padding)

    def forward() -> Any:
        with torch.no_grad():
            return conv(x, w, stride=layer.stride, padding=layer.padding)

    def nhwc(t: Any) -> tuple[np.ndarray]:
        return (t.permute(0, 2, 3, 1).float().cpu().numpy(),)

    return (
        Contender(name, forward, nhwc),
        Contender(name, lambda: torch.autograd.grad(y, x, dy, retain_graph=True)[0], nhwc),
    )


def measure(bench: Bench, layer: Layer) -> None:
    """Forward and gradient of the input for one layer."""
    sample = Sample.of(layer)
    y_exact, dx_exact = sample.reference()
    at = sample.placed()
    x, y = at.taped()
    pairs = [(Contender("nstcore", at.forward), Contender("nstcore", lambda: input_gradient(x, y, at.dy)))]
    if ON_GPU:
        pairs.append(by_cupy(at))
    if layer in (*FAST, *SMALL) and (ARGS.numpy or not ON_GPU):  # one matrix product a tap: too slow for the rest
        pairs.append(by_numpy(sample))
    if torch := bench.libraries["torch"]:
        pairs.append(by_torch(torch, sample, torch.contiguous_format, "torch NCHW"))
        pairs.append(by_torch(torch, sample, torch.channels_last, "torch channels-last"))
    forward, backward = (list(side) for side in zip(*pairs, strict=True))
    flops = OPS["conv2d"].flops
    assert flops is not None
    work = flops(sample.x.shape, sample.w.shape, stride=layer.stride, padding=layer.padding)
    traffic = sample.x.nbytes + sample.w.nbytes + sample.dy.nbytes
    bench.measure(f"forward {layer}", forward, flops=work, traffic=traffic, reference=(y_exact,))
    bench.measure(f"input gradient {layer}", backward, flops=work, traffic=traffic, reference=(dx_exact,))


def summarise(bench: Bench) -> None:
    """Print how PyTorch, in the better layout for each, compares over VGG's 3x3 layers."""
    for direction in ("forward", "input gradient"):
        ratios = []
        for layer in LAYERS:
            found = [
                r.ratio for r in bench.rows if r.work == f"{direction} {layer}" and r.contender.startswith("torch")
            ]
            ratios += [min(found)] if found else []
        if ratios:
            mean = np.exp(np.mean(np.log(ratios)))
            print(f"{direction}, {len(ratios)} VGG layers, torch / ours: mean {mean:.2f}, worst {min(ratios):.2f}")


def main() -> None:
    """Measure VGG's layers, and in the full profile the other kinds."""
    bench = Bench("conv", ["torch"])
    with reuse():  # as in a style transfer
        for layer in SMALL if TINY else (*LAYERS, *OTHERS) if FULL else FAST:
            measure(bench, layer)
    bench.finish()
    summarise(bench)


if __name__ == "__main__":
    main()
