"""The tape: what was computed from what, and the pass back over it.

A `Node` is one operation that ran; it holds its context (saved arrays) and, for each input, the tensor or node that
the input's gradient goes to. `run_backward` visits the nodes in the reverse of the order in which they were made, and
frees each node's saved arrays as soon as its gradient is computed.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from nstcore.backend import current_backend
from nstcore.backend.arrays import on_device
from nstcore.backend.loading import module as _native
from nstcore.errors import DTypeError, GradientError

if TYPE_CHECKING:
    from nstcore.autograd.tensor import Tensor
    from nstcore.ops._op import Array, Kernel, Op


Observer = Callable[["Op", tuple[Any, ...], dict[str, Any], "Tensor"], None]


class _State(threading.local):
    recording = True
    observer: Observer | None = None


_state = _State()


def is_recording() -> bool:
    """Whether operations on tensors are put on the tape in this thread."""
    return _state.recording


@contextmanager
def no_grad() -> Iterator[None]:
    """Record nothing inside a ``with`` block (or a function decorated with ``@no_grad()``)."""
    before, _state.recording = _state.recording, False
    try:
        yield
    finally:
        _state.recording = before


@contextmanager
def observe(observer: Observer) -> Iterator[None]:
    """Call ``observer(op, inputs, params, result)`` for every operation on tensors inside a ``with`` block.

    It is called in this thread alone, right after the operation, recorded or not; one observer at a time.
    """
    before, _state.observer = _state.observer, observer
    try:
        yield
    finally:
        _state.observer = before


NUMERIC = "biuf"  # kinds of element type: bool, integers, float

# Arrays up to this size are fingerprinted whole; of larger ones, about so many elements spread over all of it.
FINGERPRINT_BYTES, FINGERPRINT_SAMPLE = 1 << 18, 4096


def fingerprint(a: Array) -> int:
    """A number that changes when `a` is changed in place (for a large array: at one of its sampled elements).

    It is always 0 for an array on a device: to read it there would be to wait for all that was launched.
    """
    if on_device(a):
        return 0
    # An odd step shares no factor with a power of two, so every channel is met.
    step = 1 if a.nbytes <= FINGERPRINT_BYTES else a.size // FINGERPRINT_SAMPLE | 1
    if a.flags.forc:
        return int(_native.fingerprint(a if a.flags.c_contiguous else a.T, step))
    return int(_native.fingerprint(np.ascontiguousarray(a.flat[::step]), 1))


def native_order(a: Array) -> Array:
    """`a`, or a copy of it in the machine's byte order, which is the only one that kernels read."""
    return a if a.dtype.isnative else a.astype(a.dtype.newbyteorder("="))


class Context:
    """What one run of an operation keeps for its gradient."""

    __slots__ = ("_prints", "_recompute", "_saved", "extra", "needs")

    def __init__(self, needs: tuple[bool, ...]) -> None:
        self.needs = needs  # whether each input wants a gradient
        self.extra: Any = None  # anything that is not an array the user can reach
        self._saved: tuple[Array | None, ...] = ()
        self._prints: tuple[int | None, ...] = ()
        self._recompute: Callable[[], tuple[Array | None, ...]] | None = None

    def save(self, *arrays: Array | None) -> None:
        """Keep `arrays` for the gradient (only when one is wanted) and remember what they contain."""
        if any(self.needs):
            self._saved = arrays
            self._prints = tuple(None if a is None else fingerprint(a) for a in arrays)

    def recompute(self, arrays: Callable[[], tuple[Array | None, ...]]) -> None:
        """Let go of the saved arrays; `arrays` gives the same ones again, bit for bit, when the gradient needs them."""
        self._saved, self._prints, self._recompute = (), (), arrays

    def saved(self) -> tuple[Any, ...]:
        """The saved arrays; `GradientError` when one was changed since."""
        if self._recompute is not None:
            return self._recompute()
        for a, before in zip(self._saved, self._prints, strict=True):
            if a is not None and fingerprint(a) != before:
                raise GradientError(
                    f"an array of shape {a.shape} that its gradient needs was changed in place after it was used; "
                    "change a copy, or change it after backward()"
                )
        return self._saved


class Node:
    """One operation on the tape."""

    __slots__ = ("context", "kernel", "number", "op", "params", "parents")
    numbers = itertools.count()

    def __init__(self, op: Op, kernel: Kernel, context: Context, parents: tuple[Any, ...], params: dict[str, Any]):
        self.op = op
        self.kernel = kernel
        self.context: Context | None = context
        self.parents: tuple[Tensor | Node | None, ...] = parents
        self.params = params
        self.number = next(Node.numbers)  # larger than those of the nodes it came from

    def backward(self, grad: Array) -> tuple[Array | None, ...]:
        """Gradients of the inputs, one each."""
        gradients: tuple[Array | None, ...] = self._run(self.kernel.backward, grad)
        return gradients

    def adds_to_first_input(self) -> bool:
        """Whether `add_backward` can be used: only the first input wants a gradient."""
        return self.kernel.add_backward is not None and all(p is None for p in self.parents[1:])

    def add_backward(self, grad: Array, into: Array) -> None:
        """Add the gradient of the first input to `into`."""
        self._run(self.kernel.add_backward, grad, into)

    def _run(self, function: Callable[..., Any] | None, *arrays: Array) -> Any:
        if self.context is None:
            raise GradientError(
                f"[{self.op.name}] the tape was already used by backward(); "
                "pass retain_graph=True to the first call to use it twice"
            )
        if function is None:
            raise GradientError(f"[{self.op.name}] has no gradient")
        try:
            return function(self.context, *arrays, **self.params)
        except GradientError as error:
            raise GradientError(f"[{self.op.name}] {error}") from None


def apply(op: Op, inputs: tuple[Any, ...], **params: Any) -> Any:
    """Run `op` on tensors and arrays that are already checked, and put it on the tape when a gradient is wanted.

    What overflows or is undefined becomes infinity or NaN without a warning, here and on the way back, in every op.
    Returns a `Tensor` if any input is one, else an array.
    """
    from nstcore.autograd.tensor import Tensor

    is_tensor = [isinstance(x, Tensor) for x in inputs]
    arrays = [x.data if t else x for x, t in zip(inputs, is_tensor, strict=True)]
    if any(a is not None and a.dtype.kind not in NUMERIC for a in arrays):
        got = ", ".join(f"{a.dtype} {a.shape}" for a in arrays if a is not None)
        raise DTypeError(f"[{op.name}] expects arrays of real numbers, got {got}")
    needs = tuple(_state.recording and t and x.requires_grad for x, t in zip(inputs, is_tensor, strict=True))
    backend, arrays = _placed(arrays)
    kernel, context = op.kernel(backend), Context(needs)
    with np.errstate(all="ignore"):
        result = kernel.forward(context, *arrays, **params)
    if isinstance(result, np.generic):  # what NumPy gives for arrays without axes
        result = np.asarray(result)
    if not any(is_tensor):
        return result
    if any(needs):
        parents = tuple((x._node or x) if need else None for x, need in zip(inputs, needs, strict=True))
        found = Tensor(result, requires_grad=True, _node=Node(op, kernel, context, parents, params))
    else:
        found = Tensor(result)
    if _state.observer is not None:
        _state.observer(op, inputs, params, found)
    return found


def _placed(arrays: list[Any]) -> tuple[str, list[Any]]:
    """The backend that computes, and the arrays where it wants them: with one on a device, all are."""
    backend, held = current_backend(), next((a for a in arrays if on_device(a)), None)
    if held is None and not backend.startswith("cuda"):
        return backend, [a if a is None else native_order(a) for a in arrays]
    from nstcore.backend.cuda import backend_of, to_device

    device = backend if held is None else backend_of(held)
    placed = [a if a is None else to_device(device, a if on_device(a) else native_order(a)) for a in arrays]
    return "reference" if backend == "reference" else device, placed


def nodes_below(root: Node) -> list[Node]:
    """`root` and all nodes that it depends on, in the order in which they were made.

    So a loss of a layer that is made before the next layer is visited right before that layer's own node: its gradient
    does not wait through the whole pass, and can be added in place.
    """
    found: dict[int, Node] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node.number not in found:
            found[node.number] = node
            waiting.extend(p for p in node.parents if isinstance(p, Node))
    return [found[number] for number in sorted(found)]


class _Gradients:
    """Gradients on their way back, added up where a value was used more than once."""

    def __init__(self) -> None:
        self._sums: dict[int, Array] = {}
        self._owned: set[int] = set()  # sums that nobody else holds: they may be added to in place

    def add(self, target: object, grad: Array, owned: bool) -> None:
        """Add `grad` to what `target` has; owned: nobody else holds `grad`."""
        key = id(target)
        if key not in self._sums:
            self._sums[key] = grad
        elif key in self._owned:
            self._sums[key] += grad
            return
        elif owned:
            grad += self._sums[key]
            self._sums[key] = grad
        else:
            self._sums[key] = self._sums[key] + grad
            owned = True
        if owned:
            self._owned.add(key)

    def own(self, target: object) -> Array | None:
        """What `target` has, if it may be added to in place."""
        return self._sums[id(target)] if id(target) in self._owned else None

    def pop(self, target: object) -> tuple[Array | None, bool]:
        """Take what `target` has, and whether nobody else holds it."""
        owned = id(target) in self._owned
        self._owned.discard(id(target))
        return self._sums.pop(id(target), None), owned


@np.errstate(all="ignore")
def run_backward(root: Node, seed: Array, retain_graph: bool, deliver: Callable[[Tensor, Array, bool], None]) -> None:
    """Carry `seed`, the gradient of `root`'s result, back over the tape.

    `deliver` gets each leaf with its gradient, and whether nobody else holds that array.
    """
    order = nodes_below(root)
    gradients = _Gradients()
    gradients.add(root, seed, owned=False)
    leaves: dict[int, Tensor] = {}
    while order:
        node = order.pop()
        grad, _ = gradients.pop(node)
        if grad is None:
            continue
        leaves.update((id(p), p) for p in node.parents if p is not None and not isinstance(p, Node))
        _step_back(node, grad, gradients)
        if not retain_graph:
            node.context = None
        del grad
    for leaf in leaves.values():
        total, owned = gradients.pop(leaf)
        if total is not None:
            deliver(leaf, total, owned)


def _step_back(node: Node, grad: Array, gradients: _Gradients) -> None:
    """Add the gradients of one node's inputs to those that they have."""
    into = gradients.own(node.parents[0]) if node.adds_to_first_input() else None
    if into is not None and into.flags.c_contiguous:
        node.add_backward(grad, into)
        return
    for parent, part in zip(node.parents, node.backward(grad), strict=True):
        if parent is not None and part is not None:
            gradients.add(parent, part, owned=bool(node.kernel.symbols))
