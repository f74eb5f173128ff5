"""Choosing the CUDA backend, what is said when it cannot be, and how its kernels are launched."""

from __future__ import annotations

import inspect
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda_on_cpu import cupy_stand_in as cupy
from cuda_on_cpu.launcher import Findings

import nstcore as nst
from nstcore.backend import cuda, cuda_gram
from nstcore.backend.cuda import Family, Launch, why_not
from nstcore.errors import ArgumentError, BackendUnavailable, DeviceMemoryError

TESTS = Path(__file__).parents[1]
GUIDE = TESTS.parent / "docs" / "guide" / "cuda.md"


@pytest.fixture
def fresh() -> Iterator[None]:
    """What was found out about modules is found out again, and afterwards once more."""
    cuda.array_module.cache_clear()
    yield
    cuda.array_module.cache_clear()


@pytest.mark.usefixtures("fresh")
class TestUnavailable:
    def test_no_device(self) -> None:
        with (
            cupy.using(devices=0),
            pytest.raises(BackendUnavailable, match=r"^\[backend\] cuda-on-cpu is not available: "),
            nst.use_backend("cuda-on-cpu"),
        ):
            pass

    @pytest.mark.parametrize(
        ("state", "reason"),
        [
            (None, "CuPy is not installed (pip install nstcore[cuda])"),
            (
                {"driver": False},
                "there is no NVIDIA driver, or it is older than CuPy needs (cudaErrorInsufficientDriver: CUDA driver "
                "version is insufficient for CUDA runtime version)",
            ),
            (
                {"devices": 0},
                "CuPy finds no GPU (cudaErrorNoDevice: no CUDA-capable device is detected)",
            ),
        ],
        ids=["no CuPy", "no driver", "no device"],
    )
    def test_cuda(self, state: dict[str, Any] | None, reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "cupy", None if state is None else cupy)  # type: ignore[arg-type]
        with cupy.using(**(state or {})), pytest.raises(BackendUnavailable) as raised, nst.use_backend("cuda"):
            pass
        assert str(raised.value) == f"[backend] cuda is not available: {reason}"
        assert f"`{raised.value}`" in GUIDE.read_text("utf-8")

    @pytest.mark.parametrize("failure", ["device", "memory"])
    def test_the_command_says_it_in_a_line(
        self, failure: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Also where one of CuPy's own functions failed, not one of our kernels."""
        from nstcore import cli

        errors = {
            "device": (2, "error: [backend] the GPU failed: cudaErrorIllegalAddress\n"),
            "memory": (1, "error: out of memory; a smaller --size needs less (Out of memory allocating 8 bytes)\n"),
        }

        def fail(_: Any) -> Any:
            cuda.array_module("cuda-on-cpu")
            if failure == "device":
                raise cupy.CUDARuntimeError("cudaErrorIllegalAddress")
            raise cupy.cuda.memory.OutOfMemoryError("Out of memory allocating 8 bytes")

        monkeypatch.setattr(cli, "_run", fail)
        code, said = errors[failure]
        assert cli.main(["style"]) == code
        assert capsys.readouterr().err == said

    def test_a_broken_cupy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def broken(name: str) -> Any:
            raise OSError("libcuda.so.1:\n cannot open shared object file")

        monkeypatch.setattr(cuda, "import_module", broken)
        assert why_not("cuda") == "CuPy cannot be imported: libcuda.so.1: cannot open shared object file"

    def test_everything_else_works(self) -> None:
        """The backend is looked at when it is asked for, not at import."""
        code = "import sys, nstcore as nst; nst.ops.gram(__import__('numpy').ones((1, 2, 2, 3))); print(*sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        loaded = done.stdout.split()
        assert not {"cupy", "cuda_on_cpu", "nstcore.backend.cuda"} & set(loaded)

    def test_an_array_of_neither(self) -> None:
        class Foreign:
            __cuda_array_interface__ = None

        with pytest.raises(BackendUnavailable, match=r"^\[backend\] expects an array of CuPy, got Foreign$"):
            cuda.module_of(Foreign())


class TestEnvironment:
    @pytest.mark.parametrize("mode", ["fast", "checked"])
    def test_emulator(self, mode: str) -> None:
        code = "import numpy as np, nstcore as nst; g = nst.ops.gram(np.ones((1, 2, 2, 3))); print(type(g).__module__)"
        env = {**os.environ, "PYTHONPATH": str(TESTS), "NSTCORE_BACKEND": "cuda-on-cpu", "NSTCORE_CUDA_ON_CPU": mode}
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
        assert done.stdout.split() == ["cuda_on_cpu.cupy_stand_in"]
        assert done.stderr == "", "an array that is left at the end"

    def test_emulator_not_on_the_path(self) -> None:
        env = {**os.environ, "PYTHONPATH": "", "NSTCORE_BACKEND": "cuda-on-cpu"}
        code = "import nstcore as nst; nst.current_backend()"
        done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert "BackendUnavailable: [backend] cuda-on-cpu is not available: the emulator" in done.stderr


class TestLaunch:
    @pytest.fixture
    def family(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Family:
        """A family of two kernels in a folder of its own."""
        source = tmp_path / "try" / "try_cuda.cu"
        source.parent.mkdir()
        source.write_text(
            "typedef NST_REAL real;\n"
            'extern "C" __global__ void __launch_bounds__(32)\n'
            "set_cuda(real* x, const real* scale, int n, real value) {\n"
            "    if (threadIdx.x < n) x[threadIdx.x] = value * (scale ? *scale : real(1));\n"
            "}\n"
            'extern "C" __global__ void __launch_bounds__(32) turn_cuda(real* x, int n) {\n'
            "    extern __shared__ real dynamic_shared[];\n"
            "    if (threadIdx.x < n) dynamic_shared[threadIdx.x] = x[threadIdx.x];\n"
            "    __syncthreads();\n"
            "    if (threadIdx.x < n) x[threadIdx.x] = dynamic_shared[n - 1 - threadIdx.x];\n"
            "}\n"
        )
        monkeypatch.setattr(cuda, "sources", lambda: tmp_path)
        one = {"grid": lambda n: (min(n, 1),)}
        return Family(
            "try",
            {
                "set_cuda": Launch(32, **one),
                "turn_cuda": Launch(32, **one, shared=lambda itemsize, n: 64 * 1024 + itemsize * n),
            },
        )

    @pytest.mark.parametrize("kind", ["float32", "float64"])
    def test_arguments(self, family: Family, kind: str) -> None:
        x = cupy.empty(5, kind)
        family.run("set_cuda", x, (5,), x, None, 5, 2.5)
        np.testing.assert_array_equal(x.get(), 2.5)
        family.run("set_cuda", x, (5,), x, cupy.asarray(np.array(2, kind)), 5, 2.5)
        np.testing.assert_array_equal(x.get(), 5)

    def test_more_shared_memory_than_by_default(self, family: Family) -> None:
        x = cupy.asarray(np.arange(5, dtype=np.float32))
        family.run("turn_cuda", x, (5,), x, 5)
        np.testing.assert_array_equal(x.get(), [4, 3, 2, 1, 0])

    def test_no_blocks_no_launch(self, family: Family) -> None:
        x = cupy.empty(0, "float32")
        family.run("set_cuda", x, (0,), x, None, 0, 1.0)

    def test_a_size_that_does_not_fit(self, family: Family) -> None:
        x = cupy.empty(1, "float32")
        with pytest.raises(OverflowError):
            family.run("set_cuda", x, (1,), x, None, 2**31, 1.0)

    @pytest.mark.parametrize("grid", [(2**31,), (1, 65536), (1, 1, 65536)])
    def test_a_grid_larger_than_there_are(self, family: Family, grid: tuple[int, ...]) -> None:
        """It is the sizes that are refused, not the GPU."""
        larger = replace(family, launches={"set_cuda": Launch(32, lambda: grid)})
        said = re.escape(
            f"[set_cuda] expects sizes for a grid of at most 2147483647 × 65535 × 65535 blocks, got {grid}"
        )
        with pytest.raises(ArgumentError, match=f"^{said}$"):
            larger.run("set_cuda", cupy.empty(1, "float32"), (), None, None, 1, 1.0)

    def test_a_wrong_size_is_found(self, family: Family) -> None:
        x = cupy.empty(5, "float32")
        with pytest.raises(Findings, match=r"try_cuda\.cu:4: set_cuda: out of bounds"):
            family.run("set_cuda", x, (5,), x, None, 6, 1.0)

    def test_compiled_once(self, family: Family) -> None:
        wanted = (family.path, cupy.__name__, "float32", "set_cuda", 0)
        assert cuda._function(*wanted) is cuda._function(*wanted)

    @pytest.mark.parametrize("failing", ["launch", "compiler"])
    def test_a_failed_launch(self, family: Family, failing: str) -> None:
        x = cupy.empty(5, "float32")
        state = {"launch": "CUDA_ERROR_LAUNCH_FAILED: unspecified launch failure"} if failing == "launch" else {}
        said = rf"^\[backend\] set_cuda cannot be launched: {state.get('launch')}$"
        if failing == "compiler":
            family.path.write_text('extern "C" __global__ void __launch_bounds__(32) set_cuda(float* x) { none; }\n')
            said = (
                r"^\[backend\] try_cuda\.cu cannot be compiled for a GPU of compute capability 9\.0: .*error: .*none.*$"
            )
        with cupy.using(**state), pytest.raises(BackendUnavailable, match=said) as raised:
            family.run("set_cuda", x, (5,), x, None, 5, 1.0)
        assert "\n" not in str(raised.value)
        assert raised.value.__cause__ is not raised.value

    def test_no_memory(self) -> None:
        said = r"^\[backend\] the memory of the GPU does not suffice: Out of memory allocating 4,000 bytes \("
        x = cupy.empty(5, "float32")
        with cupy.using(memory=cupy.get_default_memory_pool().used_bytes() + 100):
            for make in (
                lambda: cuda.empty_like(x, (1000,)),
                lambda: nst.backend.moved(np.ones(1000, "f"), "cuda-on-cpu"),
            ):
                with pytest.raises(DeviceMemoryError, match=said) as raised:
                    make()
                assert isinstance(raised.value, MemoryError)
                assert isinstance(raised.value, BackendUnavailable)

    def test_a_kernel_that_failed_is_told_when_its_result_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def failed(_: Any) -> Any:
            raise cupy.CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was encountered")

        x = cupy.empty(5, "float32")
        monkeypatch.setattr(cupy.ndarray, "get", failed)
        with pytest.raises(BackendUnavailable, match=r"^\[backend\] the GPU failed: cudaErrorIllegalAddress: "):
            nst.backend.moved(x, "cpu")


def test_a_module_moves() -> None:
    net = nst.nn.Linear(3, 2, rng=np.random.default_rng(0))
    before = net.weight.data
    assert net.to("cuda-on-cpu") is net
    assert isinstance(net.weight.data, cupy.ndarray)
    state = net.state_dict()
    np.testing.assert_array_equal(state["weight"], before)
    net.load_state_dict({name: array + 1 for name, array in state.items()})
    assert isinstance(net.bias.data, cupy.ndarray)
    np.testing.assert_array_equal(net.to("cpu").weight.data, before + 1)


def test_buffers_move_but_counters_stay() -> None:
    norm, drop = nst.nn.BatchNorm(3), nst.nn.Dropout(0.5, seed=1)
    net = nst.nn.Sequential(norm, drop).to("cuda-on-cpu")
    assert isinstance(norm.running, cupy.ndarray)
    assert isinstance(drop.calls, np.ndarray)
    assert list(dict(net.named_buffers())) == ["parts.0.running", "parts.1.calls"]
    state = net.state_dict()
    assert all(isinstance(array, np.ndarray) for array in state.values())
    held = norm.running
    net.load_state_dict({name: array + 2 for name, array in state.items()})
    assert norm.running is held
    np.testing.assert_array_equal(held.get(), [[2, 2, 2], [3, 3, 3]])
    assert int(drop.calls) == 2
    assert net.astype(np.float64) is net
    assert isinstance(norm.running, cupy.ndarray)
    assert norm.running.dtype == np.float64
    net.to("cpu")
    np.testing.assert_array_equal(norm.running, [[2, 2, 2], [3, 3, 3]])


def test_a_network_learns_as_on_the_host() -> None:
    """Three steps of convolution, normalisation with pool, dropout, and a loss of pairs; then the trained network."""

    def run(backend: str) -> list[np.ndarray]:
        rng = np.random.default_rng(0)
        norms = nst.nn.BatchNorm(4, activation="relu", pool=True), nst.nn.BatchNorm(6)
        net = nst.nn.Sequential(
            nst.nn.Conv2d(3, 4, 3, padding=1, bias=False, rng=rng), norms[0], nst.nn.Dropout(0.2, seed=3),
            nst.nn.Flatten(), nst.nn.Linear(36, 6, rng=rng), norms[1], nst.nn.L2Normalize(),
        )  # fmt: skip
        x, same = rng.standard_normal((8, 6, 7, 3), np.float32), np.arange(4) % 2
        with nst.use_backend(backend):
            net.astype(np.float64).to(backend).train()
            optimizer = nst.optim.AdamW(net.parameters(), 0.01)
            pictures = nst.backend.moved(x.astype(np.float64), backend)

            def closure() -> float:
                z = net(nst.Tensor(pictures))
                loss = nst.ops.contrastive_loss(z[:4], z[4:], same)
                loss.backward()
                nst.optim.clip_gradients(optimizer.parameters, 0.5)
                return float(loss)

            losses = [optimizer.step(closure) for _ in range(3)]
            found = net.eval()(pictures)
        assert isinstance(norms[0].running, cupy.ndarray) == (backend != "cpu")
        return [np.array(losses), cupy.asnumpy(found.data), *net.state_dict().values()]

    for got, expected in zip(run("cuda-on-cpu"), run("cpu"), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-7, atol=1e-9)


OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "SGD": ("SGD", {"learning_rate": 0.1}),
    "Nesterov": ("SGD", {"learning_rate": 0.01, "weight_decay": 0.1, "nesterov": True}),
    "Adam": ("Adam", {"learning_rate": 0.1, "weight_decay": 0.1}),
    "AdamW": ("AdamW", {"learning_rate": 0.1, "weight_decay": 0.1}),
    "LBFGS": ("LBFGS", {}),
}


@pytest.mark.parametrize("variant", OPTIMIZERS)
def test_optimizers(variant: str) -> None:
    """A run on the device, saved and restored in its middle, is the run on the host."""
    name, rate = OPTIMIZERS[variant]

    def run(backend: str) -> np.ndarray:
        with nst.use_backend(backend):
            x = nst.Tensor(nst.backend.moved(np.array([[1.0, -2.0, 3.0]]), backend), requires_grad=True)
            optimizer = getattr(nst.optim, name)([x], **rate)

            def closure() -> float:
                loss = ((x - 1) * (x - 1) * (x + 2) * (x + 2)).sum()
                loss.backward()
                return loss.item()

            for step in range(4):
                optimizer.step(closure)
                if step == 1:
                    state = optimizer.state_dict()
                    optimizer = getattr(nst.optim, name)([x], **rate)
                    optimizer.load_state_dict(state)
            return cupy.asnumpy(x.data)

    np.testing.assert_allclose(run("cuda-on-cpu"), run("cpu"), rtol=1e-12)


@pytest.mark.parametrize("shape", [(1, 1, 3), (12, 9, 3), (7, 20, 3)])
def test_spectral_scaling(shape: tuple[int, ...]) -> None:
    """L-BFGS's first Hessian, learned and applied on the device, is that of the host, and the same bits again."""
    rng = np.random.default_rng(0)
    pairs = [(s, s * rng.uniform(0.5, 2, s.size)) for s in rng.standard_normal((3, np.prod(shape)))]
    vector, found = rng.standard_normal(np.prod(shape)), []
    for place in (np.asarray, cupy.asarray, cupy.asarray):
        scaling = nst.optim.SpectralScaling(shape)
        for s, y in pairs:
            scaling.observe(place(s), place(y), float(s @ y))
        applied = scaling.apply(place(vector))
        assert type(applied) is type(place(vector))
        assert {type(a) for a in scaling.state_dict().values()} == {np.ndarray}
        found.append((cupy.asnumpy(applied), scaling.state_dict()["gains"]))
    np.testing.assert_allclose(found[1][0], found[0][0], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found[1][1], found[0][1], rtol=1e-9)
    np.testing.assert_array_equal(found[1][0], found[2][0])


def test_the_stand_in_has_nothing_that_cupy_lacks() -> None:
    """What our code uses of the one is there in the other."""
    real = pytest.importorskip("cupy", reason="CuPy is not installed", exc_type=ImportError)
    for name in ("ndarray", "empty", "zeros", "asarray", "ascontiguousarray", "asnumpy", "RawModule"):
        assert hasattr(real, name)
    special = ("get", "data", "__array_ufunc__", "__array_function__", "__cuda_array_interface__")
    for name in (*special, *cupy.ATTRIBUTES):
        assert hasattr(real.ndarray, name)
    for name in ("Device", "Event", "get_elapsed_time", "is_available", "compiler.CompileException"):
        assert callable(attrgetter(name)(real.cuda))
    for name in ("driver.CUDADriverError", "runtime.CUDARuntimeError", "memory.OutOfMemoryError"):
        assert set(attrgetter(name)(cupy.cuda).__mro__[1:]) <= set(attrgetter(name)(real.cuda).__mro__)
    assert all(hasattr(real.cuda.runtime, name) for name in vars(cupy.cuda.runtime))
    for kind in ("Device", "Event"):
        known = [name for name in vars(getattr(cupy.cuda, kind)) if not name.startswith("_")]
        assert all(hasattr(getattr(real.cuda, kind), name) for name in known)
    pool = real.get_default_memory_pool()
    assert all(hasattr(pool, name) for name in vars(cupy.get_default_memory_pool()))
    for name, known in cupy.FUNCTIONS.items():
        takes = inspect.signature(attrgetter(name)(real)).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in takes.values())
        assert anything or set(known) <= set(takes), name
    for name, known in cupy.METHODS.items():  # compiled ones, whose parameters their docstring begins with
        takes_text = getattr(real.ndarray, name).__doc__.splitlines()[0]
        assert all(re.search(rf"\b{option}\b", takes_text) for option in known), name


class TestStandIn:
    """What it grants must not be more than CuPy does."""

    def test_axes_keep_their_order_in_memory(self) -> None:
        x = cupy.asarray(np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1))
        assert x.strides == (8, 96, 32)
        assert (x * 2).strides == x.strides
        np.testing.assert_array_equal((x * 2).get(), 2 * np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1))
        assert cupy.ascontiguousarray(x).flags.c_contiguous

    def test_a_kernel_would_misread_them(self) -> None:
        x = cupy.asarray(np.ones((2, 3), np.float32).T)
        with pytest.raises(AssertionError, match="is not contiguous"):
            cuda_gram.GRAM.run("gram_forward_sum_cuda", x, (1, 1), x * 2, x, 1, 1)

    def test_lists_are_refused(self) -> None:
        with pytest.raises(TypeError, match="Unsupported type <class 'list'>"):
            np.add(cupy.asarray(np.ones(3)), [1, 2, 3])

    def test_functions_that_cupy_has_not(self) -> None:
        with pytest.raises(TypeError, match="returned NotImplemented"):
            np.spacing(cupy.asarray(np.ones(3)))
