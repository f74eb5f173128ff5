"""One step of style transfer, and its peak memory, beside PyTorch: python benchmarks/style_bench.py --help.

The step is the whole of it: VGG-16 to conv5_1 with its real weights, five Gram matrices and one content layer, the
gradient of the pixels, and Adam's update. The loss is compared with PyTorch's in the same run.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness import ARGS, FULL, Bench, Contender  # first: it sets the threads of all libraries

import resource  # isort: skip
import subprocess
import sys
from pathlib import Path

import numpy as np

import nstcore as nst
from nstcore.models.vgg_layout import convolutions
from nstcore.style.objective import Objective
from nstcore.style.settings import Settings

STYLE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT = "conv4_2"
LAST = "conv5_1"
RATE = 0.02


def pictures(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A content and a style picture, smooth enough to look like photographs to the network."""
    rng = np.random.default_rng(0)
    return tuple(nst.images.resize_to(rng.random((24, 24, 3), np.float32), side, side) for _ in range(2))  # type: ignore[return-value]


def ours(side: int) -> Callable[[], float]:
    """A function that takes one step of our engine and returns the loss before it."""
    content, style = pictures(side)
    settings = Settings(size=side, content_weight=1.0, style_weight=1.0, optimizer="adam")
    objective = Objective(nst.models.vgg16(), content, [style], settings)
    pixels = nst.tensor(content[None], requires_grad=True)
    adam = nst.optim.Adam([pixels], RATE)

    def closure() -> float:
        pixels.grad = None
        return objective.evaluate(pixels).total

    return lambda: adam.step(closure)


def flops(side: int) -> float:
    """Multiplications and additions of the convolutions as direct sums, forward and to the pixels' gradient."""
    total, at = 0.0, side
    for name, inputs, outputs in convolutions("vgg16"):
        at = side >> int(name[4]) - 1
        total += 2 * 18.0 * inputs * outputs * at * at
        if name == LAST:
            break
    return total


class TorchStep:
    """The same step in PyTorch, written as its users write it, weights and pictures in channels-last or NCHW order."""

    def __init__(self, torch: Any, side: int, channels_last: bool) -> None:
        self.torch, self.f = torch, torch.nn.functional
        order = torch.channels_last if channels_last else torch.contiguous_format
        self.place = lambda a: torch.from_numpy(np.ascontiguousarray(a.transpose(0, 3, 1, 2))).contiguous(
            memory_format=order
        )
        net = nst.models.vgg16()
        self.layers = {
            name: (self.place(layer.weight.data), torch.from_numpy(layer.bias.data))
            for name, layer in net.convolutions.items()
        }
        content, style = (self.place(p[None]) for p in pictures(side))
        with torch.no_grad():
            self.target = self.features(content)[CONTENT]
            self.grams = {name: self.gram(self.features(style)[name]) for name in STYLE}
        self.pixels = content.clone(memory_format=torch.preserve_format).requires_grad_(True)
        self.adam = torch.optim.Adam([self.pixels], lr=RATE)

    def features(self, x: Any) -> dict[str, Any]:
        x = x.flip(1) * 255 - self.torch.tensor([103.939, 116.779, 123.68]).reshape(1, 3, 1, 1)
        found = {}
        for name, (w, b) in self.layers.items():
            if name.endswith("_1") and name != "conv1_1":
                x = self.f.max_pool2d(x, 2)
            x = self.f.relu(self.f.conv2d(x, w, b, padding=1))
            if name in STYLE or name == CONTENT:
                found[name] = x
            if name == LAST:
                break
        return found

    def gram(self, a: Any) -> Any:
        flat = a.permute(0, 2, 3, 1).reshape(-1, a.shape[1])
        return flat.T @ flat

    def __call__(self) -> float:
        self.adam.zero_grad()
        found = self.features(self.pixels)
        difference = found[CONTENT] - self.target
        loss = 0.5 * (difference * difference).mean()
        for name in STYLE:
            _, c, h, w = found[name].shape
            gap = (self.gram(found[name]) - self.grams[name]) / (2 * h * w * c)
            loss = loss + 0.2 * (gap * gap).sum()
        loss.backward()
        self.adam.step()
        return float(loss.detach())


def measure_peaks(side: int, names: list[str]) -> None:
    """Print the peak memory of three steps, each contender in a process of its own."""
    print(f"\npeak memory of a process that takes three steps at {side} px (resident, whole process):")
    for name in names:
        probe = (
            f"import sys; sys.argv = ['style_bench.py', '--threads', '{ARGS.threads}']; import style_bench as b; "
            f"step = b.contender({name!r}, {side}); [step() for _ in range(3)]; print(b.peak_megabytes())"
        )
        done = subprocess.run(
            [sys.executable, "-c", probe], cwd=sys.path[0], capture_output=True, text=True, check=True
        )
        print(f"  {name:<20} {done.stdout.strip():>6} MB")


def peak_megabytes() -> int:
    """Largest resident size of this process so far. (ru_maxrss would start at that of the parent.)"""
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("VmHWM"))) // 1024
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1 << 20)  # macOS counts bytes


def contender(name: str, side: int) -> Callable[[], float]:
    """The step of one contender by name."""
    if name == "nstcore":
        return ours(side)
    import torch

    torch.set_num_threads(ARGS.threads)
    return TorchStep(torch, side, channels_last=name == "torch channels-last")


def main() -> None:
    """Measure the step at 256 and 512 px, and the memory at 512."""
    bench = Bench("style step", ["torch"])
    names = ["nstcore"] + (["torch", "torch channels-last"] if bench.libraries["torch"] else [])
    for side in (128, 256, 512) if FULL else (256, 512):
        steps = {name: contender(name, side) for name in names}
        first = [step() for step in steps.values()]
        print(f"loss at the start: {', '.join(f'{n} {v:.7g}' for n, v in zip(names, first, strict=True))}")
        if max(first) > min(first) * 1.001:
            raise SystemExit("the contenders do not minimise the same loss")
        bench.measure(f"{side} px", [Contender(n, s) for n, s in steps.items()], flops=flops(side))
        del steps
    bench.finish()
    measure_peaks(512, names)


if __name__ == "__main__":
    main()
