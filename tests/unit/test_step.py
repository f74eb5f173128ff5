"""One step of style transfer: no waste of memory, no page faults, and the same gradient by every way."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import models, ops
from nstcore.autograd import Tensor, engine
from nstcore.backend import cpu, memory
from nstcore.style.objective import Objective
from nstcore.style.settings import Settings

Array = np.ndarray


def drawn(*shape: int, seed: int = 0, dtype: str = "float32") -> Array:
    return np.random.default_rng(seed).random(shape).astype(dtype)


@pytest.fixture(scope="module")
def net() -> models.VGG:
    return models.vgg16()


def objective(net: models.VGG, side: int, **options: Any) -> Objective:
    settings = Settings(size=side, style_weight=1.0, optimizer="adam", **options)
    return Objective(net, drawn(side, side, 3), [drawn(side, side, 3, seed=1)], settings)


def gradient(a: Array, *parts: Any) -> Array:
    """Gradient of the sum of `parts` of one array, which is itself the result of an op."""
    x = nst.tensor(a, requires_grad=True)
    y, total = ops.max_pool2d(x, 1), 0.0
    for part in parts:
        total = total + part(y)
    total.backward()  # type: ignore[attr-defined]
    assert x.grad is not None
    return x.grad


class TestAddedGradients:
    """A loss of a layer that the next layer uses too: its gradient is added to the one that is there."""

    @pytest.mark.parametrize("isa", cpu.isas())
    @pytest.mark.parametrize("loss", ["style", "content", "gram"])
    @pytest.mark.parametrize("channels", [3, 16, 33, 64])
    def test_is_the_sum_of_both(self, isa: str, loss: str, channels: int) -> None:
        cpu.set_isa(isa)
        a, target = drawn(1, 9, 15, channels, dtype="float64"), drawn(1, 9, 15, channels, seed=1, dtype="float64")

        def cost(x: Any) -> Any:
            if loss == "style":
                return ops.style_loss(x, ops.gram(target)) * 0.5
            return (ops.content_loss(x, target) if loss == "content" else ops.sum(ops.gram(x))) * 0.5

        def pooled(x: Any) -> Any:
            return ops.sum(ops.max_pool2d(x, 2) * 3.0)

        both = gradient(a, cost, pooled)  # made in this order, the cost is visited last
        np.testing.assert_allclose(both, gradient(a, cost) + gradient(a, pooled), rtol=1e-12, atol=1e-12)

    def test_adds_in_the_array_that_is_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        taken: list[bool] = []
        native = cpu.native.gram_backward_cpu

        def spy(*arguments: Any) -> None:
            taken.append(arguments[3])
            native(*arguments)

        monkeypatch.setattr(cpu.native, "gram_backward_cpu", spy)
        a, target = drawn(1, 16, 16, 16), np.zeros((1, 16, 16), np.float32)
        gradient(a, lambda y: ops.style_loss(y, target), lambda y: ops.sum(ops.max_pool2d(y, 2)))
        gradient(a, lambda y: ops.style_loss(y, target))
        assert taken == [True, False]

    def test_a_gradient_that_somebody_else_holds_is_not_changed(self) -> None:
        x, y = (nst.tensor(drawn(1, 8, 8, 4, seed=s), requires_grad=True) for s in (0, 1))
        seed = drawn(1, 8, 8, 4, seed=2)
        made = ops.max_pool2d(x, 1)
        cost = ops.content_loss(made, np.zeros_like(seed))
        (ops.sum((made + y) * seed) + cost).backward()
        assert y.grad is not None
        np.testing.assert_array_equal(y.grad, seed)


class TestLargeResults:
    """From 16 MiB on, results are stored past the caches: the same bits as in pieces that are not."""

    @pytest.mark.parametrize("isa", cpu.isas())
    def test_gram_gradient(self, isa: str) -> None:
        cpu.set_isa(isa)
        x, d = drawn(1, 260, 256, 64), drawn(1, 64, 64, seed=1)
        whole, part = memory.empty(x.shape, "float32"), memory.empty((1, 20, 256, 64), "float32")
        assert whole.nbytes >= 16 << 20
        cpu.native.gram_backward_cpu(x, d, 2.0, False, whole)
        for i in range(0, 260, 20):
            cpu.native.gram_backward_cpu(np.ascontiguousarray(x[:, i : i + 20]), d, 2.0, False, part)
            np.testing.assert_array_equal(whole[:, i : i + 20], part)

    @pytest.mark.parametrize("isa", cpu.isas())
    @pytest.mark.parametrize("pool", [ops.max_pool2d, ops.avg_pool2d])
    def test_pool_gradient(self, isa: str, pool: Any) -> None:
        cpu.set_isa(isa)
        x, weights = drawn(1, 515, 257, 32), drawn(1, 257, 128, 32, seed=1)

        def gradient_of(first: int, last: int) -> Array:
            t = nst.tensor(x[:, first:last], requires_grad=True)
            y = pool(t, 2)
            y.backward(weights[:, first // 2 : first // 2 + y.shape[1]])
            assert t.grad is not None
            return t.grad

        whole = gradient_of(0, 515)
        assert whole.nbytes >= 16 << 20
        for i in range(0, 515, 128):
            np.testing.assert_array_equal(whole[:, i : i + 128], gradient_of(i, min(i + 128, 515)))


class TestMemory:
    def test_no_page_faults_after_the_first_steps(self, net: models.VGG) -> None:
        resource = pytest.importorskip("resource")
        with memory.reuse():
            costs, pixels = objective(net, 128), Tensor(drawn(1, 128, 128, 3), requires_grad=True)
            adam = nst.optim.Adam([pixels], 0.02)
            for _ in range(3):
                adam.step(lambda: costs.evaluate(pixels).total)
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
            for _ in range(4):
                adam.step(lambda: costs.evaluate(pixels).total)
            # The activations alone are 5000 pages a step.
            assert resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before < 400

    def test_what_is_held_stays_near_what_is_used(self, net: models.VGG) -> None:
        with memory.reuse():
            costs, pixels = objective(net, 128), Tensor(drawn(1, 128, 128, 3), requires_grad=True)
            costs.evaluate(pixels)
            first = sum(memory.usage())
            for _ in range(4):
                pixels.grad = None
                costs.evaluate(pixels)
            assert sum(memory.usage()) <= first * 9 / 8 + (4 << 20)

    def test_nothing_is_left_in_use_after_a_step(self, net: models.VGG) -> None:
        costs, pixels = objective(net, 64), Tensor(drawn(1, 64, 64, 3), requires_grad=True)
        gc.collect()
        before = memory.usage().used
        costs.evaluate(pixels)
        pixels.grad = None
        assert memory.usage().used == before

    def test_low_memory_gives_the_same_bits_in_less(self, net: models.VGG) -> None:
        found, most = [], []
        for setting in ("normal", "low"):
            memory.give_back()
            with memory.reuse():
                costs, pixels = objective(net, 128, memory=setting), Tensor(drawn(1, 128, 128, 3), requires_grad=True)
                terms = costs.evaluate(pixels)
                assert pixels.grad is not None
                found.append((terms, pixels.grad.tobytes()))
            with memory.reuse():
                memory.give_back()
                costs.evaluate(pixels)
                most.append(sum(memory.usage()))
        assert found[0] == found[1]
        assert most[1] < most[0]

    def test_low_memory_lets_the_first_layer_go(self, net: models.VGG) -> None:
        for setting, lives in (("normal", True), ("low", False)):
            total, *_ = objective(net, 64, memory=setting)._costs(Tensor(drawn(1, 64, 64, 3), requires_grad=True))
            (node,) = [n for n in engine.nodes_below(total._node) if n.op.name == "style_loss"][:1]
            assert [a is not None for a in node.context._saved] == ([True] if lives else [])

    def test_a_layer_that_nobody_holds_dies(self, net: models.VGG) -> None:
        seen: list[Any] = []
        for _, a in net.walk(drawn(1, 64, 64, 3), ["conv1_1", "conv1_2", "pool1"]):
            assert all(ref() is None for ref in seen)
            seen.append(weakref.ref(a))
            del a
        assert len(seen) == 3

    def test_walk_gives_what_features_gives(self, net: models.VGG) -> None:
        image, layers = drawn(40, 33, 3), ["pool2", "conv1_1", "conv2_2"]
        walked = list(net.walk(image, layers))
        assert [name for name, _ in walked] == ["conv1_1", "conv2_2", "pool2"]
        for name, expected in net.features(image, layers).items():
            np.testing.assert_array_equal(dict(walked)[name].data, expected)


def test_threads_do_not_change_a_bit_of_a_step(net: models.VGG) -> None:
    found = []
    for threads in (1, 2, 3):
        nst.set_num_threads(threads)
        costs, pixels = objective(net, 96, tv_weight=1.0), Tensor(drawn(1, 96, 96, 3), requires_grad=True)

        def closure(costs: Objective = costs, pixels: Tensor = pixels) -> float:
            return costs.evaluate(pixels).total

        for optimizer in (nst.optim.Adam([pixels], 0.02), nst.optim.LBFGS([pixels])):
            for _ in range(2):
                optimizer.step(closure)
        found.append(pixels.data.tobytes())
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("size", [0, 1, 15, 17, 32768, 100_001])
def test_vectors(dtype: str, size: int) -> None:
    """Sums around the number of partial sums (16) and a chunk (32768)."""
    a, b = drawn(size, dtype=dtype) - 0.5, drawn(size, seed=1, dtype=dtype)
    exact = float(a.astype(np.longdouble) @ b.astype(np.longdouble))
    expected = b + np.asarray(-0.75, dtype) * a
    for isa in cpu.isas():
        cpu.set_isa(isa)
        sums = []
        for threads in (1, 2, 3):
            nst.set_num_threads(threads)
            sums.append(cpu.native.dot(a, b))
        assert sums[0] == sums[1] == sums[2] == pytest.approx(exact, rel=1e-12, abs=1e-12)
        y = b.copy()
        cpu.native.add_scaled(a, -0.75, y)
        np.testing.assert_allclose(y, expected, rtol=1e-6 if dtype == "float32" else 1e-15, atol=1e-7)
