"""One step of style transfer, and its peak memory, beside PyTorch: python benchmarks/style_bench.py --help.

The step is the whole of it: VGG-16 to conv5_1 with its real weights, five Gram matrices and one content layer, the
gradient of the pixels, and Adam's update. The loss is compared with PyTorch's in the same run.

--to-loss: PyTorch minimises the loss by its L-BFGS, as neural-style-pt does, in 300 evaluations; then nstcore starts
from the same picture and stops at that loss.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from harness import ARGS, FULL, MACHINE, ON_GPU, TINY, Bench, Contender  # first: it sets the threads of all libraries

import resource  # isort: skip
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

import nstcore as nst
from nstcore.backend.memory import reuse
from nstcore.models.vgg_layout import convolutions
from nstcore.style.objective import Objective
from nstcore.style.settings import Settings

STYLE: tuple[str, ...] = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT, LAST = "conv4_2", "conv5_1"
if TINY:
    STYLE, CONTENT, LAST = STYLE[:2], "conv2_2", "conv2_2"
RATE = 0.02
EVALUATIONS = 300
FIRST_STEPS = 2  # they touch fresh memory


def pictures(side: int) -> tuple[np.ndarray, np.ndarray]:
    """A content and a style picture, smooth enough to look like photographs to the network."""
    rng = np.random.default_rng(0)
    return tuple(nst.images.resize_to(rng.random((24, 24, 3), np.float32), side, side) for _ in range(2))  # type: ignore[return-value]


def ours(side: int) -> Callable[[], float]:
    """A function that takes one step of our engine and returns the loss before it."""
    pixels, closure = our_loss(side)
    adam = nst.optim.Adam([pixels], RATE)
    return lambda: adam.step(closure)


def our_loss(side: int) -> tuple[nst.Tensor, Callable[[], float]]:
    """The picture, and a function that computes its loss and gradient."""
    content, style = pictures(side)
    layers = {"style_layers": list(STYLE), "content_layers": [CONTENT]}
    settings = Settings(size=side, content_weight=1.0, style_weight=1.0, **layers)  # type: ignore[arg-type]
    objective = Objective(nst.models.vgg16().to(MACHINE.backend), content, [style], settings)
    pixels = nst.tensor(MACHINE.place(content[None]), requires_grad=True)
    return pixels, lambda: objective.evaluate(pixels).total


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

        def place(a: np.ndarray) -> Any:
            placed = torch.from_numpy(np.ascontiguousarray(a.transpose(0, 3, 1, 2))).to(MACHINE.torch_device)
            return placed.contiguous(memory_format=order)

        self.place = place
        self.means = torch.tensor([103.939, 116.779, 123.68], device=MACHINE.torch_device).reshape(1, 3, 1, 1)
        net = nst.models.vgg16()
        self.layers = {
            name: (self.place(layer.weight.data), torch.from_numpy(layer.bias.data).to(MACHINE.torch_device))
            for name, layer in net.convolutions.items()
        }
        content, style = (self.place(p[None]) for p in pictures(side))
        with torch.no_grad():
            self.target = self.features(content)[CONTENT]
            self.grams = {name: self.gram(self.features(style)[name]) for name in STYLE}
        self.pixels = content.clone(memory_format=torch.preserve_format).requires_grad_(True)
        self.adam = torch.optim.Adam([self.pixels], lr=RATE)

    def features(self, x: Any) -> dict[str, Any]:
        x = x.flip(1) * 255 - self.means
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

    def loss(self) -> Any:
        found = self.features(self.pixels)
        difference = found[CONTENT] - self.target
        loss = 0.5 * (difference * difference).mean()
        for name in STYLE:
            _, c, h, w = found[name].shape
            gap = (self.gram(found[name]) - self.grams[name]) / (2 * h * w * c)
            loss = loss + (gap * gap).sum() / len(STYLE)
        return loss

    def __call__(self) -> float:
        self.adam.zero_grad()
        loss = self.loss()
        loss.backward()
        self.adam.step()
        return float(loss.detach())

    def minimise(self, evaluations: int) -> list[float]:
        """The loss of each evaluation of torch.optim.LBFGS, set as neural-style-pt sets it."""
        losses: list[float] = []
        lbfgs = self.torch.optim.LBFGS(
            [self.pixels], max_iter=evaluations, max_eval=evaluations, tolerance_change=-1, tolerance_grad=-1
        )

        def closure() -> Any:
            lbfgs.zero_grad()
            loss = self.loss()
            loss.backward()
            losses.append(float(loss.detach()))
            return loss

        lbfgs.step(closure)
        return losses


def page_faults() -> int:
    """Pages of memory that this process touched for the first time, so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt


def probe(name: str, side: int, steps: int = 8) -> None:
    """Print what one contender needs in a process of its own: milliseconds a step, peak memory, page faults a step."""
    step = contender(name, side)
    for _ in range(FIRST_STEPS):
        step()
    before, times = page_faults(), []
    for _ in range(steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    print(1e3 * float(np.median(times)), peak_megabytes(), (page_faults() - before) / steps)


def in_a_process(name: str, side: int, threads: int = ARGS.threads, steps: int = 8) -> list[float]:
    """What `probe` prints."""
    isa = f", '--isa', '{ARGS.isa}'" if ARGS.isa else ""
    program = (
        f"import sys; sys.argv = ['style_bench.py', '--threads', '{threads}'{isa}]; import style_bench as b; "
        f"b.in_reuse(b.probe, {name!r}, {side}, {steps})"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=sys.path[0], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


def in_reuse(run: Callable[..., Any], *arguments: Any) -> Any:
    """Call as `nst.style.transfer` computes: what is freed is kept for the next step."""
    with reuse():
        return run(*arguments)


def measure_processes(names: list[str]) -> None:
    """Print memory and page faults at 512 px, what a second thread brings, and how a step grows with the picture."""
    columns = ("one thread", "two threads", "scaling", "peak memory", "page faults a step")
    print(f"\n{'a process at 512 px':<20}{''.join(f'{c:>20}' for c in columns)}")
    for name in names:
        (one, _, _), (two, peak, faults) = in_a_process(name, 512, 1, 4), in_a_process(name, 512, 2, 4)
        cells = (f"{one:.0f} ms", f"{two:.0f} ms", f"{one / two:.2f}", f"{peak:.0f} MB", f"{faults:.0f}")
        print(f"{name:<20}{''.join(f'{c:>20}' for c in cells)}", flush=True)
    if FULL:
        columns = ("step", "a pixel", "peak memory", "a pixel more")
        print(f"\n{'nstcore by size':<20}{''.join(f'{c:>16}' for c in columns)}")
        least = None
        for side in (128, 256, 512, 1024, 2048):
            step, peak, _ = in_a_process("nstcore", side, ARGS.threads, 3)
            least = least or (peak, side)
            grown = (peak - least[0]) * (1 << 20) / max(1, side**2 - least[1] ** 2)
            cells = (f"{step:.0f} ms", f"{step * 1e6 / side**2:.0f} ns", f"{peak:.0f} MB", f"{grown:.0f} bytes")
            print(f"{f'{side} px':<20}{''.join(f'{c:>16}' for c in cells)}", flush=True)


def time_to_loss(side: int) -> None:
    """Print how long PyTorch takes for its evaluations, and nstcore to the loss that they reach."""
    import torch

    torch.set_num_threads(ARGS.threads)
    rival = TorchStep(torch, side, channels_last=False)
    start = time.perf_counter()
    losses = rival.minimise(EVALUATIONS)
    theirs, goal = time.perf_counter() - start, min(losses)
    pixels, evaluate = our_loss(side)
    lbfgs = nst.optim.LBFGS([pixels], scaling=nst.optim.SpectralScaling(pixels.shape[1:]))  # as nst.style.transfer
    count = 0

    def closure() -> float:
        nonlocal count
        count += 1
        return evaluate()

    start, loss = time.perf_counter(), np.inf
    while loss > goal and count < 4 * EVALUATIONS and not lbfgs.converged:
        loss = lbfgs.step(closure)
    ours = time.perf_counter() - start
    print(f"{side} px, PyTorch: loss {losses[0]:.4g} to {goal:.4g}, {len(losses)} evaluations, {theirs:.1f} s")
    print(f"{side} px, nstcore: {loss:.4g} in {count} evaluations, {ours:.1f} s: {theirs / ours:.2f} times as soon")
    if loss > goal:
        raise SystemExit("nstcore did not reach that loss")


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
    """Measure the step at 256 and 512 px, then memory, page faults and threads; or the time to a loss."""
    if ARGS.to_loss and (ON_GPU or TINY):
        raise SystemExit("style_bench: --to-loss is of the processor, and needs a real size")
    if ARGS.to_loss:
        in_reuse(time_to_loss, 512 if FULL else 256)
        return
    bench = Bench("style step", ["torch"])
    names = ["nstcore"] + (["torch", "torch channels-last"] if bench.libraries["torch"] else [])
    in_reuse(measure_steps, bench, names)
    bench.finish()
    if ON_GPU:
        print(f"\nmemory that CuPy's pool holds: {MACHINE.memory() / 2**20:.0f} MB")
    elif not TINY:
        measure_processes(names)


def measure_steps(bench: Bench, names: list[str]) -> None:
    """The contenders in turns, at each size."""
    for side in (32,) if TINY else (128, 256, 512) if FULL else (256, 512):
        steps = {name: contender(name, side) for name in names}
        first = [step() for step in steps.values()]
        print(f"loss at the start: {', '.join(f'{n} {v:.7g}' for n, v in zip(names, first, strict=True))}")
        if max(first) > min(first) * 1.001:
            raise SystemExit("the contenders do not minimise the same loss")
        bench.measure(f"{side} px", [Contender(n, s) for n, s in steps.items()], flops=flops(side))
        del steps


if __name__ == "__main__":
    main()
