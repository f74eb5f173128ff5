"""What a record says a place of the result is computed from (`Op.reach`) is what it is computed from."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from nstcore import Tensor
from nstcore.autograd.engine import observe
from nstcore.ops import OPS, Case, Op


def selects(op: Op) -> bool:
    """Ops that take each place from a window of their input."""
    return op.reach is not None


def seen(op: Op, case: Case) -> tuple[tuple[Any, ...], dict[str, Any], tuple[int, ...]]:
    """Shapes and parameters as the kernel gets them, and the shape that it gives."""
    calls: list[tuple[tuple[Any, ...], dict[str, Any], tuple[int, ...]]] = []

    def note(which: Op, inputs: tuple[Any, ...], params: dict[str, Any], result: Tensor) -> None:
        if which is op:
            calls.append((tuple(None if x is None else x.shape for x in inputs), params, result.shape))

    with observe(note):
        op.public(*(Tensor(x) for x in case.inputs("float64")), **case.params)
    (call,) = calls
    return call


def test_reach(op: Op, case: Case) -> None:
    """Change all of the first input outside of the window: the place stays. Change the window: it does not."""
    inputs = case.inputs("float64")
    shapes, params, given = seen(op, case)
    reach = op.reach(*shapes, **params)
    if reach is None or inputs[0].ndim != 4 or not inputs[0].size:
        return
    result = np.asarray(op.public(*inputs, **case.params))
    if result.shape != given:  # another operation follows, as the pool does behind a convolution that cannot do both
        return
    rng = np.random.default_rng(0)
    for _ in range(4):
        place = tuple(int(rng.integers(n)) for n in result.shape[1:3])
        first = [o * axis.stride - axis.before for o, axis in zip(place, reach, strict=True)]
        rows, columns = (slice(max(0, a), max(0, a + axis.window)) for a, axis in zip(first, reach, strict=True))
        outside = inputs[0] + 1 + rng.random(inputs[0].shape)
        outside[:, rows, columns] = inputs[0][:, rows, columns]
        kept = np.asarray(op.public(outside, *inputs[1:], **case.params))[:, place[0], place[1]]
        np.testing.assert_allclose(kept, result[:, place[0], place[1]], rtol=1e-9, atol=1e-9)
        if inputs[0][:, rows, columns].size:
            inside = inputs[0].copy()
            inside[:, rows, columns] += 1 + rng.random(inside[:, rows, columns].shape)
            changed = np.asarray(op.public(inside, *inputs[1:], **case.params))[:, place[0], place[1]]
            assert (changed != result[:, place[0], place[1]]).any()


@pytest.mark.parametrize("name", ["conv2d", "max_pool2d", "avg_pool2d", "pad", "local_response_norm", "relu"])
def test_is_declared(name: str) -> None:
    """Without it, whatever comes after these would seem to see the whole picture."""
    assert OPS[name].reach is not None
