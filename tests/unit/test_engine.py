"""The tape: accumulation, depth, memory, safety of saved arrays, and what is not recorded."""

from __future__ import annotations

import sys
import threading
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import nstcore as nst
from nstcore import Tensor, no_grad, ops, tensor
from nstcore.autograd import engine
from nstcore.errors import GradientError, ShapeError
from nstcore.ops import OPS, Kernel, Op


def leaf(values: Any, dtype: str = "float64") -> Tensor:
    return tensor(values, requires_grad=True, dtype=dtype)


class TestAccumulation:
    def test_fan_out_adds_up(self) -> None:
        x = leaf([1.0, 2.0])
        (x + x * x + x * 3 + x).sum().backward()
        np.testing.assert_array_equal(x.grad, 2 * x.data + 5)

    def test_an_operand_twice(self) -> None:
        x = leaf([2.0])
        (x * x).backward()
        assert x.grad == 4

    def test_diamonds_in_a_row(self) -> None:
        """Each diamond doubles the number of paths; each node must run once."""
        x = leaf(1.0)
        y = x
        for _ in range(50):
            y = y + y
        y.backward()
        assert x.grad == 2.0**50

    def test_paths_of_unequal_length(self) -> None:
        x = leaf(2.0)
        a = x * 3
        b = ops.exp(a * 0) * a
        (a * b + a).backward()
        assert x.grad == pytest.approx(3 * (2 * 6 + 1))

    def test_second_backward_adds(self) -> None:
        x = leaf([1.0])
        for _ in range(3):
            (x * 2).backward()
        assert x.grad == 6
        x.zero_grad()
        assert x.grad is None

    def test_a_leaf_by_itself(self) -> None:
        x = leaf(3.0)
        x.backward()
        assert x.grad == 1

    def test_only_reached_leaves_get_a_gradient(self) -> None:
        x, y = leaf([1.0]), leaf([1.0])
        (x * 2).backward()
        assert y.grad is None

    def test_inputs_without_gradient_get_none(self) -> None:
        x, frozen = leaf([1.0]), tensor([5.0])
        (x * frozen).backward()
        assert frozen.grad is None
        assert x.grad == 5

    def test_leaf_gradients_share_no_memory(self) -> None:
        a, b, seed = leaf([1.0, 1.0]), leaf([1.0, 1.0]), np.ones(2)
        (a + b).backward(seed)
        assert a.grad is not None
        assert b.grad is not None
        assert not np.shares_memory(a.grad, b.grad)
        assert not np.shares_memory(a.grad, seed)
        a.grad[:] = 7
        np.testing.assert_array_equal(b.grad, [1, 1])

    def test_gradient_of_a_sum_can_be_written(self) -> None:
        x = leaf(np.ones(3))
        x.sum().backward()
        assert x.grad is not None
        x.grad += 1

    def test_an_earlier_gradient_is_not_changed_in_place(self) -> None:
        x = leaf([1.0])
        (x * 2).backward()
        first = x.grad
        (x * 2).backward()
        assert first == 2


class TestDepth:
    LINKS = 100_000

    def test_a_long_chain_is_built_walked_and_freed(self) -> None:
        assert sys.getrecursionlimit() < self.LINKS
        x = leaf(1.0)
        y = x
        for _ in range(self.LINKS):
            y = y + 0.0
        y.backward()
        assert x.grad == 1
        del y

    def test_a_long_chain_is_freed_without_backward(self) -> None:
        y = leaf(1.0)
        for _ in range(self.LINKS):
            y = y + 0.0
        del y


class TestNoGrad:
    def test_context(self) -> None:
        x = leaf([1.0])
        with no_grad():
            assert not nst.is_recording()
            y = x * 2
        assert nst.is_recording()
        assert not y.requires_grad
        assert y.is_leaf

    def test_decorator_works_each_time(self) -> None:
        @no_grad()
        def double(t: Tensor) -> Tensor:
            return t * 2

        x = leaf([1.0])
        assert not double(x).requires_grad
        assert not double(x).requires_grad
        assert nst.is_recording()

    def test_ends_with_an_exception(self) -> None:
        with pytest.raises(KeyError), no_grad():
            raise KeyError
        assert nst.is_recording()

    def test_nests(self) -> None:
        with no_grad():
            with no_grad():
                pass
            assert not nst.is_recording()

    def test_other_threads_go_on_recording(self) -> None:
        seen: list[bool] = []
        with no_grad():
            thread = threading.Thread(target=lambda: seen.append((leaf([1.0]) * 2).requires_grad))
            thread.start()
            thread.join()
        assert seen == [True]

    def test_detach_shares_the_array_and_cuts_the_tape(self) -> None:
        x = leaf([2.0])
        y = (x * 3).detach()
        assert not y.requires_grad
        (x * y).backward()
        assert x.grad == 6
        assert x.detach().data is x.data


class TestErrors:
    def test_nothing_to_differentiate(self) -> None:
        with pytest.raises(GradientError, match=r"^\[backward\] nothing to differentiate"):
            (tensor([1.0]) * 2).backward()

    def test_not_a_scalar(self) -> None:
        with pytest.raises(ShapeError, match=r"^\[backward\] expects a scalar, or grad= of the same shape, got \(2,\)"):
            (leaf([1.0, 2.0]) * 2).backward()

    def test_seed_of_another_shape(self) -> None:
        with pytest.raises(ShapeError, match=r"^\[backward\] expects grad of shape \(2,\), got \(3,\)"):
            (leaf([1.0, 2.0]) * 2).backward(np.ones(3))

    def test_tape_used_twice(self) -> None:
        x = leaf([1.0])
        y = x * 2
        y.backward()
        with pytest.raises(GradientError, match=r"^\[mul\] the tape was already used.*retain_graph=True"):
            y.backward()

    def test_retain_graph(self) -> None:
        x = leaf([3.0])
        y = x * x
        y.backward(retain_graph=True)
        y.backward()
        assert x.grad == 12

    def test_an_op_without_gradient_says_so(self) -> None:
        op = Op("sign", "... -> ...", lambda x: x, Kernel(lambda ctx, x: np.sign(x), None), ())
        with pytest.raises(GradientError, match=r"^\[sign\] has no gradient"):
            engine.apply(op, (leaf([1.0]),)).backward()
        assert "sign" not in OPS


# Each writes into an array of shape (n,) that an op has used.
CHANGES: list[Callable[[np.ndarray], None]] = [
    lambda a: a.__setitem__(0, 9),
    lambda a: a.__setitem__(-1, 9),
    lambda a: a.__imul__(2),
    lambda a: a.fill(0),
]


class TestInPlaceSafety:
    @pytest.mark.parametrize("change", CHANGES)
    def test_small_array(self, change: Callable[[np.ndarray], None]) -> None:
        x = leaf([1.0, 2.0, 3.0])
        y = (x * x).sum()
        change(x.data)
        with pytest.raises(GradientError, match=r"^\[mul\] an array of shape \(3,\) .* was changed in place"):
            y.backward()

    def test_large_array_changed_in_bulk(self) -> None:
        x = leaf(np.ones((1, 128, 128, 64)), "float32")
        y = (x * x).sum()
        x.data -= 0.1
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()

    def test_one_channel_of_a_large_array(self) -> None:
        """The sample of a large array must not fall on the same channels again and again."""
        for channels in (16, 32, 64, 128):
            x = leaf(np.ones((1 << 21) // channels * channels).reshape(-1, channels), "float32")
            y = (x * x).sum()
            x.data[:, channels - 1] = 2
            with pytest.raises(GradientError, match="changed in place"):
                y.backward()

    def test_large_strided_array(self) -> None:
        base = np.ones((300, 2, 500), np.float32)
        x = Tensor(base[:, 0], requires_grad=True)
        y = (x * x).sum()
        base[:] = 2
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()

    @pytest.mark.parametrize("kind", ["float64", "float32", "float16", "int8"])
    @pytest.mark.parametrize("size", [1, 7, 64, 4096, 150_001])
    def test_signs_of_all_elements(self, kind: str, size: int) -> None:
        """The highest bit of every word, an even number of times: what a sum that never brings it down would lose."""
        a = np.ones((size, 2), kind)
        views = (a, a.T, a[:, ::-1])
        before = [engine.fingerprint(view) for view in views]
        assert before == [engine.fingerprint(view) for view in views]
        a *= -1
        assert all(engine.fingerprint(view) != found for view, found in zip(views, before, strict=True))

    def test_any_single_byte_of_a_small_array(self) -> None:
        a = np.arange(83, dtype=np.uint8)
        found = {engine.fingerprint(a)}
        for i in range(a.size):
            a[i] ^= 128
            found.add(engine.fingerprint(a))
        assert len(found) == a.size + 1

    def test_result_that_the_gradient_needs(self) -> None:
        x = leaf([1.0, 2.0])
        y = ops.exp(x)
        y.data[0] = 0
        with pytest.raises(GradientError, match=r"^\[exp\]"):
            y.sum().backward()

    def test_change_of_a_frozen_input(self) -> None:
        x, frozen = leaf([1.0]), tensor([2.0])
        y = x * frozen
        frozen.data[0] = 3
        with pytest.raises(GradientError, match="changed in place"):
            y.backward()

    def test_change_of_an_index(self) -> None:
        x, index = leaf([1.0, 2.0]), np.array([0, 0])
        y = x[index].sum()
        index[0] = 1
        with pytest.raises(GradientError, match=r"^\[getitem\]"):
            y.backward()

    def test_change_after_backward(self) -> None:
        x = leaf([1.0, 2.0])
        for _ in range(3):
            x.zero_grad()
            (x * x).sum().backward()
            x.data -= 0.1 * x.grad
        np.testing.assert_allclose(x.data, [0.512, 1.024])

    def test_change_of_what_the_gradient_does_not_need(self) -> None:
        """A sum needs no operand, a product with a constant not the variable."""
        x, other = leaf([1.0]), tensor([2.0])
        y = (x + other) * 3 - x
        x.data[:] = other.data[:] = 100
        y.backward()
        assert x.grad == 2


class TestMemory:
    def probe(self, died: list[str]) -> Callable[[Tensor, str], Tensor]:
        """An identity op that says when its saved array is freed, and which were alive when its gradient ran."""

        def forward(ctx: engine.Context, x: np.ndarray, name: str) -> np.ndarray:
            kept = x.copy()
            ctx.save(kept)
            ctx.extra = weakref.finalize(kept, died.append, f"freed {name}")
            return kept.view()

        def backward(ctx: engine.Context, grad: np.ndarray, name: str) -> tuple[np.ndarray | None, ...]:
            died.append(f"gradient of {name}")
            return (grad,)

        op = Op("probe", "... -> ...", lambda x: x, Kernel(forward, backward), ())
        return lambda x, name: engine.apply(op, (x,), name=name)

    def test_saved_arrays_are_freed_as_backward_proceeds(self) -> None:
        log: list[str] = []
        probe = self.probe(log)
        y = leaf([1.0])
        for name in "abc":
            y = probe(y, name) + 0.0
        assert log == []
        y.backward()
        expected = ["gradient of c", "freed c", "gradient of b", "freed b", "gradient of a", "freed a"]
        assert log == expected

    def test_nothing_is_kept_when_nothing_is_differentiated(self) -> None:
        log: list[str] = []
        probe = self.probe(log)
        with no_grad():
            y = probe(leaf([1.0]), "a") + 0.0
        assert log == ["freed a"]
        assert y.data == 1

    def test_dropping_the_result_frees_the_tape(self) -> None:
        log: list[str] = []
        y = self.probe(log)(leaf([1.0]), "a") + 0.0
        del y
        assert log == ["freed a"]

    def test_gradients_in_between_are_not_kept(self) -> None:
        seen: list[weakref.ref[np.ndarray]] = []

        def backward(ctx: engine.Context, grad: np.ndarray) -> tuple[np.ndarray | None, ...]:
            alive.append(sum(ref() is not None for ref in seen))
            out = grad * 1
            seen.append(weakref.ref(out))
            return (out,)

        alive: list[int] = []
        op = Op("pass", "... -> ...", lambda x: x, Kernel(lambda ctx, x: x * 1, backward), ())
        y = leaf([1.0, 2.0])
        for _ in range(10):
            y = engine.apply(op, (y,))
        y.backward(np.ones(2))
        assert max(alive) <= 2


def test_sums_in_place_never_reach_another_gradient() -> None:
    """A native gradient added to one that two tensors share must leave the other's as it is."""
    rng = np.random.default_rng(0)
    a, b = (nst.tensor(rng.standard_normal((1, 4, 5, 3)), requires_grad=True) for _ in range(2))
    h = a * 1.0
    total = (h + b) * 2.0  # its gradient is one array for h and b
    (total.sum() + nst.ops.gram(h).sum() + nst.ops.gram(h * 1.0).sum()).backward()
    np.testing.assert_array_equal(b.grad, np.full(b.shape, 2.0))
    expected = 2.0 + 2 * 2 * a.data.sum(3, keepdims=True)
    np.testing.assert_allclose(a.grad, np.broadcast_to(expected, a.shape), rtol=1e-12)
