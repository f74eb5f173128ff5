"""One training step of the small embedding network, and its parts: python benchmarks/train_bench.py --help."""

from __future__ import annotations

from typing import Any

from harness import FULL, Bench, Contender  # first: it sets the threads of all libraries

import numpy as np  # isort: skip

import nstcore as nst

BATCH, SIDE, PER_CLASS, MARGIN = 64, 64, 4, 0.2
# The four convolutions of the network: side, channels, filters.
LAYERS = ((64, 3, 16), (32, 16, 32), (16, 32, 64), (8, 64, 128))


class Ours:
    """The network with its optimiser; a call takes one step and gives the loss."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels
        self.net = nst.models.embedding_net(seed=0)
        self.optimizer = nst.optim.AdamW(self.net.parameters(), 1e-3, weight_decay=1e-2)

    def loss(self) -> Any:
        """The loss as a tensor."""
        z = self.net(nst.Tensor(self.images))
        return nst.ops.batch_triplet_loss(z, self.labels, MARGIN, "batch_hard", "mean")

    def __call__(self) -> float:
        def closure() -> float:
            loss = self.loss()
            loss.backward()
            return float(loss)

        return self.optimizer.step(closure)


def torch_step(torch: Any, images: np.ndarray, labels: np.ndarray, ours: Ours, channels_last: bool) -> Any:
    """The same network with the same weights, the same loss and the same optimiser, by PyTorch."""
    nn = torch.nn
    parts: list[Any] = []
    for c, k in zip((3, 16, 32, 64), (16, 32, 64, 128), strict=True):
        parts += [nn.Conv2d(c, k, 3, padding=1, bias=False), nn.BatchNorm2d(k), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
    net = nn.Sequential(*parts, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(512, 128, bias=False), nn.BatchNorm1d(128))
    with torch.no_grad():
        for i, layer in enumerate(ours.net.convolutions):
            parts[4 * i].weight.copy_(torch.from_numpy(layer.weight.data.transpose(0, 3, 1, 2).copy()))
        matrix = ours.net.projection.weight.data.reshape(128, 2, 2, 128).transpose(0, 3, 1, 2).reshape(128, 512)
        net[-2].weight.copy_(torch.from_numpy(matrix.copy()))
    x = torch.from_numpy(images.transpose(0, 3, 1, 2).copy())
    if channels_last:
        net, x = net.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=1e-2)
    same = torch.from_numpy(labels[:, None] == labels[None])
    itself = torch.eye(len(labels), dtype=torch.bool)

    def loss() -> Any:
        variance, mean = torch.var_mean(x, (1, 2, 3), correction=0, keepdim=True)
        z = nn.functional.normalize(net((x - mean) / torch.sqrt(variance + 1e-4)), dim=1)
        distance = (2 - 2 * z @ z.T).clamp_min(0)
        far = distance.masked_fill(~same | itself, -1).amax(1)
        near = distance.masked_fill(same, 9).amin(1)
        return torch.relu(far - near + MARGIN).mean()

    def step() -> float:
        optimizer.zero_grad(set_to_none=True)
        value = loss()
        value.backward()
        optimizer.step()
        return float(value.detach())

    first = float(loss().detach())
    expected = float(ours.loss())
    assert abs(first - expected) < 1e-4 * abs(expected), (first, expected)
    return step


def measure_step(bench: Bench) -> None:
    """The whole step: forward, loss with mining, backward, optimiser."""
    rng = np.random.default_rng(0)
    images = rng.random((BATCH, SIDE, SIDE, 3), np.float32)
    labels = np.repeat(np.arange(BATCH // PER_CLASS), PER_CLASS)
    ours = Ours(images, labels)
    contenders = [Contender("nstcore", ours)]
    if torch := bench.libraries["torch"]:
        for name, last in (("PyTorch", False), ("PyTorch, channels last", True)):
            contenders.append(Contender(name, torch_step(torch, images, labels, Ours(images, labels), last)))
    flops = 3 * 2.0 * BATCH * (sum(s * s * 9 * c * k for s, c, k in LAYERS) + 512 * 128)
    bench.measure(f"step, batch of {BATCH}, {SIDE}x{SIDE}", contenders, flops=flops)


def measure_weight_gradients(bench: Bench) -> None:
    """The gradient of each convolution's weights."""
    from nstcore.backend.cpu import native

    rng = np.random.default_rng(1)
    for side, c, k in LAYERS:
        x = rng.standard_normal((BATCH, side, side, c), np.float32)
        dy = rng.standard_normal((BATCH, side, side, k), np.float32)
        dw = np.empty((k, 3, 3, c), np.float32)

        def run(x: Any = x, dy: Any = dy, dw: Any = dw) -> Any:
            native.conv2d_backward_weight_cpu(x, dy, None, (1, 1), (1, 1), dw)
            return dw

        contenders = [Contender("nstcore", run)]
        if torch := bench.libraries["torch"]:
            for name, last in (("PyTorch", False), ("PyTorch, channels last", True)):
                form = torch.channels_last if last else torch.contiguous_format
                tx, tdy = (torch.from_numpy(a.transpose(0, 3, 1, 2).copy()).to(memory_format=form) for a in (x, dy))

                def theirs(tx: Any = tx, tdy: Any = tdy, shape: Any = (k, c, 3, 3)) -> Any:
                    return torch.nn.grad.conv2d_weight(tx, shape, tdy, padding=1)

                contenders.append(Contender(name, theirs, lambda r: (r.numpy().transpose(0, 2, 3, 1),)))
        exact = run().astype(np.float64)
        bench.measure(
            f"weights {c}->{k} at {side}", contenders, flops=2.0 * BATCH * side**2 * 9 * c * k, reference=(exact,)
        )


def main() -> None:
    """Measure."""
    bench = Bench("train", ["torch"])
    measure_step(bench)
    if FULL:
        measure_weight_gradients(bench)
    bench.finish()


if __name__ == "__main__":
    main()
