# ruff: noqa: N802, N815  (the names are those of CUDA and TensorRT)
"""Plans on a make-believe GPU: everything but the engine and CUDA themselves is real.

Device memory is host memory here, streams do their work at once or when they are waited for, and
the engine is NumPy. What that cannot show, whether TensorRT really runs, is left to the tests marked
``gpu``.
"""

import ctypes
import importlib.machinery
import json
import sys
import threading
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cellseg.runtime.backends import Backend, Options, gpus, load_spec, open_backend
from cellseg.runtime.backends.gpus import Gpu
from cellseg.runtime.backends.trt import cache, opening, plans, runner
from cellseg.runtime.backends.trt.plans import FLAVOURS, PlanRecord, Profile
from cellseg.runtime.errors import BackendError, ModelError, UsageError
from cellseg.runtime.model.spec import ModelSpec
from cellseg.runtime.testing.backends import BackendConformance

from ..test_conformance import box_planes

RELEASE = "99.1.2.3"
ADA = Gpu(0, "Make-believe Ada", (8, 9), 24 << 30)
BLACKWELL = Gpu(0, "Make-believe Blackwell", (12, 0), 24 << 30)


class FakeCuda(types.ModuleType):
    """``cuda.bindings.runtime`` whose device is this process's own memory; streams are lazy."""

    cudaStreamNonBlocking, cudaEventDisableTiming, cudaEventBlockingSync = 1, 2, 1
    cudaMemcpyKind = types.SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
    cudaStreamCaptureMode = types.SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __init__(self) -> None:
        super().__init__("cuda.bindings.runtime")
        self.buffers: dict[int, ctypes.Array[ctypes.c_char]] = {}
        self.queues: dict[int, list[Callable[[], None]]] = {}
        self.capturing: dict[int, list[Callable[[], None]]] = {}
        self.events: dict[int, int] = {}
        self.graphs: list[object] = []
        self.handles = iter(range(1000, 10**9))
        self.lock = threading.RLock()
        self.refuse = ""

    def __getattribute__(self, name: str) -> object:
        if name.startswith("cuda") and name == object.__getattribute__(self, "refuse"):
            return lambda *_: (700, None)
        return object.__getattribute__(self, name)

    def cudaGetErrorString(self, error: int) -> tuple[int, bytes]:
        return 0, b"an illegal memory access was encountered"

    def cudaSetDevice(self, index: int) -> tuple[int]:
        return (0,) if index == 0 else (101,)

    def cudaMalloc(self, size: int) -> tuple[int, int]:
        buffer = ctypes.create_string_buffer(size)
        self.buffers[ctypes.addressof(buffer)] = buffer
        return 0, ctypes.addressof(buffer)

    def cudaHostAlloc(self, size: int, flags: int) -> tuple[int, int]:
        return self.cudaMalloc(size)

    def cudaFree(self, address: int) -> tuple[int]:
        del self.buffers[address]
        return (0,)

    cudaFreeHost = cudaFree

    def cudaStreamCreateWithFlags(self, flags: int) -> tuple[int, int]:
        handle = next(self.handles)
        self.queues[handle] = []
        return 0, handle

    def cudaStreamDestroy(self, stream: int) -> tuple[int]:
        assert not self.queues.pop(stream), "destroyed with work in it"
        return (0,)

    def cudaEventCreateWithFlags(self, flags: int) -> tuple[int, int]:
        return 0, next(self.handles)

    def cudaEventDestroy(self, event: int) -> tuple[int]:
        return (0,)

    def put(self, stream: int, work: Callable[[], None]) -> None:
        self.capturing.get(stream, self.queues[stream]).append(work)

    def cudaMemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        self.put(stream, lambda: ctypes.memmove(to, source, size) and None)
        return (0,)

    def cudaEventRecord(self, event: int, stream: int) -> tuple[int]:
        self.events[event] = stream
        return (0,)

    def cudaEventSynchronize(self, event: int) -> tuple[int]:
        return self.cudaStreamSynchronize(self.events[event])

    def cudaStreamSynchronize(self, stream: int) -> tuple[int]:
        with self.lock:
            while self.queues[stream]:
                self.queues[stream].pop(0)()
        return (0,)

    def cudaStreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:
        self.capturing[stream] = []
        return (0,)

    def cudaStreamEndCapture(self, stream: int) -> tuple[int, object]:
        self.graphs.append(self.capturing.pop(stream))
        return 0, self.graphs[-1]

    def cudaGraphInstantiate(self, graph: list[Callable[[], None]], flags: int) -> tuple[int, object]:
        self.graphs.append(list(graph))
        return 0, self.graphs[-1]

    def cudaGraphDestroy(self, graph: object) -> tuple[int]:
        self.graphs = [kept for kept in self.graphs if kept is not graph]
        return (0,)

    cudaGraphExecDestroy = cudaGraphDestroy

    def cudaGraphLaunch(self, graph: list[Callable[[], None]], stream: int) -> tuple[int]:
        for work in graph:
            self.put(stream, work)
        return (0,)


class FakeTrt(types.ModuleType):
    """A release of TensorRT that runs one model, :func:`box_planes`."""

    __version__ = RELEASE

    class ILogger:
        Severity = types.SimpleNamespace(INTERNAL_ERROR=0, ERROR=1, WARNING=2)

    class ExecutionContextAllocationStrategy:
        USER_MANAGED = "the user's"

    def __init__(self, name: str, cuda: FakeCuda) -> None:
        super().__init__(name)
        self.cuda, self.capturable, self.tensors = cuda, True, ["image", "planes"]
        self.low, self.high = (1, 4, 4, 3), (4, 128, 128, 3)

    def Runtime(self, log: object) -> object:
        self.log = log
        return self

    def deserialize_cuda_engine(self, data: bytes) -> object:
        if data.startswith(b"plan"):
            return self
        self.log.log(1, "the magic tag\n does not match")
        self.log.log(2, "by the way")
        return None

    @property
    def num_io_tensors(self) -> int:
        return len(self.tensors)

    def get_tensor_name(self, index: int) -> str:
        return self.tensors[index]

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[tuple[int, ...]]:
        return [self.low, self.low, self.high]

    def create_execution_context(self, how: object) -> object:
        assert how == self.ExecutionContextAllocationStrategy.USER_MANAGED
        return FakeContext(self)


class FakeRtx(FakeTrt):
    """A release of TensorRT-RTX: it compiles its kernels where it runs, and captures its own graphs."""

    DynamicShapesKernelSpecializationStrategy = types.SimpleNamespace(EAGER="first")
    CudaGraphStrategy = types.SimpleNamespace(WHOLE_GRAPH_CAPTURE="whole")

    def __init__(self, name: str, cuda: FakeCuda) -> None:
        super().__init__(name, cuda)
        self.compiled: list[tuple[int, ...]] = []
        self.refuses_kernels = False

    def create_runtime_config(self) -> object:
        return FakeConfig(self)

    def create_execution_context(self, how: object) -> object:
        assert isinstance(how, FakeConfig)
        assert (how.strategy, how.dynamic_shapes_kernel_specialization_strategy) == ("the user's", "first")
        assert how.cuda_graph_strategy == "whole"
        return FakeContext(self, how.cache)


class FakeConfig:
    cuda_graph_strategy: object = None
    dynamic_shapes_kernel_specialization_strategy: object = None

    def __init__(self, owner: FakeRtx) -> None:
        self.owner = owner

    def set_execution_context_allocation_strategy(self, strategy: object) -> None:
        self.strategy = strategy

    def create_runtime_cache(self) -> object:
        return FakeCache(self.owner)

    def set_runtime_cache(self, cache: object) -> None:
        self.cache = cache


class FakeCache:
    """Kernels are the shapes that they were compiled for."""

    def __init__(self, owner: FakeRtx) -> None:
        self.owner, self.shapes = owner, set[tuple[int, ...]]()

    def deserialize(self, data: bytes) -> bool:
        if self.owner.refuses_kernels:
            return False
        self.shapes = {tuple(shape) for shape in json.loads(data)}
        return True

    def serialize(self) -> bytes:
        return json.dumps(sorted(self.shapes)).encode()


class FakeContext:
    #: Bytes of its own that it needs to run.
    scratch = 1 << 17

    def __init__(self, owner: FakeTrt, cache: FakeCache | None = None) -> None:
        self.owner, self.addresses, self.cache = owner, {}, cache

    def update_device_memory_size_for_shapes(self) -> int:
        assert self.shape, "asked before its shape was set"
        return self.scratch

    def set_device_memory(self, address: int, size: int) -> None:
        assert len(self.owner.cuda.buffers[address]) == size == self.scratch
        self.memory = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.shape = shape
        bounds = zip(self.owner.low, shape, self.owner.high, strict=True)
        return all(low <= size <= high for low, size, high in bounds)

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return self.owner.capturable

    def execute_async_v3(self, stream: int) -> bool:
        assert self.memory in self.owner.cuda.buffers
        if self.cache is not None and self.shape not in self.cache.shapes:
            self.owner.compiled.append(self.shape)
            self.cache.shapes.add(self.shape)
        self.owner.cuda.put(stream, self.run)
        return True

    def run(self) -> None:
        buffer = self.owner.cuda.buffers[self.addresses["image"]]
        size = int(np.prod(self.shape))
        planes = box_planes(np.frombuffer(buffer, np.uint8, size).reshape(self.shape))
        ctypes.memmove(self.addresses["planes"], planes.tobytes(), planes.nbytes)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCuda]:
    """A machine with one GPU and TensorRT."""
    fake = FakeCuda()
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", fake)
    monkeypatch.setitem(sys.modules, "tensorrt", FakeTrt("tensorrt", fake))
    monkeypatch.setattr(runner, "_LOGGERS", {})
    monkeypatch.setattr(opening, "list_gpus", lambda: (ADA,))
    monkeypatch.setattr(plans, "installed_release", lambda f: RELEASE if f.name == "tensorrt" else None)
    yield fake
    import gc

    gc.collect()
    assert not fake.buffers, "memory was not given back"
    assert not fake.graphs, "graphs were not given back"
    assert not fake.queues, "streams were not given back"


@pytest.fixture
def engine(cuda: FakeCuda) -> FakeTrt:
    return sys.modules["tensorrt"]  # type: ignore[return-value]


@pytest.fixture
def rtx(cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> FakeRtx:
    """The same machine, with TensorRT-RTX in place of TensorRT."""
    fake = FakeRtx("tensorrt_rtx", cuda)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", fake)
    monkeypatch.setattr(plans, "installed_release", lambda f: RELEASE if f.name == "tensorrt_rtx" else None)
    monkeypatch.setattr(cache, "driver_version", lambda: "580.1")
    return fake


@pytest.fixture
def plan(tmp_path: Path, model_path: Path, box_spec: ModelSpec) -> Path:
    """A plan next to the ONNX file that it was built from."""
    (tmp_path / "box.onnx").write_bytes(model_path.read_bytes())
    path = tmp_path / "box.plan"
    path.write_bytes(b"plan of a box")
    write_sidecar(path, box_spec)
    return path


def write_sidecar(plan: Path, spec: ModelSpec, **changes: object) -> PlanRecord:
    values: dict[str, object] = {
        "spec": spec,
        "onnx": "box.onnx",
        "onnx_sha256": plans.sha256(plan.with_name("box.onnx")),
        "plan_sha256": plans.sha256(plan),
        "flavour": "tensorrt",
        "release": RELEASE,
        "gpu": "Make-believe Ada",
        "capabilities": ("8.6", "8.9"),
        "profile": Profile(batch=(1, 2, 4), tile=(4, 32, 128)),
        "precision": "fp32",
        "build_seconds": 1.0,
    }
    record = PlanRecord(**{**values, **changes}).sealed()
    plans.sidecar(plan).write_text(record.model_dump_json())
    return record


class TestConformance(BackendConformance):
    @pytest.fixture(params=[True, False], ids=["graphs", "no-graphs"])
    def model_path(self, plan: Path, engine: FakeTrt, request: pytest.FixtureRequest) -> Path:
        engine.capturable = request.param
        return plan

    def open(self, path: Path) -> Backend:
        return open_backend(path, options=Options(fallback="none"))

    def reference(self, batch: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return box_planes(batch)


def test_a_plan_names_itself(plan: Path, cuda: FakeCuda) -> None:
    with open_backend(plan, "cuda:0") as backend:
        backend.prepare(32, 2)
        assert (backend.name, backend.device, backend.note) == ("tensorrt", "cuda:0", "")
        assert backend.description == f"tensorrt on cuda:0 (TensorRT {RELEASE}, fp32, CUDA graphs)"
        assert (backend.tiles, backend.largest_batch) == ((4, 128), 4)
    assert load_spec(plan).name == "box"


def test_buffers_are_page_locked_and_given_back(plan: Path, cuda: FakeCuda) -> None:
    with open_backend(plan) as backend:
        backend.prepare(32, 2)
        before = len(cuda.buffers)
        batch, planes = backend.new_batch(), backend.new_planes()
        assert batch.ctypes.data in cuda.buffers
        assert (batch.shape, planes.shape) == ((2, 32, 32, 3), (2, 2, 32, 32))
        view = batch[0, :4]
        del batch
        assert len(cuda.buffers) == before + 2  # a view keeps its memory
        del view, planes
        assert len(cuda.buffers) == before


def test_a_plan_for_large_batches_takes_small_ones(plan: Path, box_spec: ModelSpec, engine: FakeTrt) -> None:
    engine.low = (4, 4, 4, 3)
    write_sidecar(plan, box_spec, profile=Profile(batch=(4, 4, 4), tile=(32, 32, 32)))
    rng = np.random.default_rng(0)
    with open_backend(plan) as backend:
        backend.prepare(32, 1)
        batch = rng.integers(0, 256, (1, 32, 32, 3), np.uint8)
        np.testing.assert_array_equal(backend.submit(batch).result(), box_planes(batch))


def test_errors_carry_the_words_of_cuda_and_engine(plan: Path, cuda: FakeCuda, box_spec: ModelSpec) -> None:
    with open_backend(plan) as backend:
        backend.prepare(32, 1)
        batch = backend.new_batch()
        cuda.refuse = "cudaMemcpyAsync"
        for _ in range(runner.SLOTS + 1):  # a failed batch gives its slot back
            with pytest.raises(BackendError, match="cudaMemcpyAsync failed: an illegal memory access"):
                backend.submit(batch)
        cuda.refuse = ""
        del batch
    plan.write_bytes(b"noise")
    write_sidecar(plan, box_spec)
    with pytest.raises(
        BackendError, match=rf"TensorRT {RELEASE} does not take it: the magic tag does not match; rebuild"
    ):
        open_backend(plan, options=Options(fallback="none"))


def test_a_gpu_that_is_too_small_says_what_helps(plan: Path, cuda: FakeCuda) -> None:
    with open_backend(plan) as backend:
        cuda.refuse = "cudaMalloc"
        with pytest.raises(
            BackendError, match=r"cudaMalloc failed: .* \(0\.1 MB\); take a smaller batch or tile"
        ):
            backend.prepare(128, 2)
        cuda.refuse = "cudaGraphInstantiate"
        backend.prepare(128, 2)
        assert "no CUDA graphs" in backend.description
        cuda.refuse = ""


class TestKernels:
    """What TensorRT-RTX compiles, once for all slots, and keeps next to the plan."""

    @pytest.fixture
    def rtx_plan(self, plan: Path, box_spec: ModelSpec, rtx: FakeRtx) -> Path:
        write_sidecar(plan, box_spec, flavour="tensorrt_rtx")
        return plan

    def run(self, plan: Path, tile: int = 32) -> str:
        """Open, run a batch, and return what there was to say."""
        with open_backend(plan, options=Options(fallback="none")) as backend:
            backend.prepare(tile, 1)
            assert "CUDA graphs" in backend.description
            assert "no CUDA graphs" not in backend.description
            batch = np.random.default_rng(0).integers(0, 256, (1, tile, tile, 3), np.uint8)
            np.testing.assert_array_equal(backend.submit(batch).result(), box_planes(batch))
            return backend.note

    def test_all_slots_share_one_compilation_and_so_does_the_next_start(
        self, rtx_plan: Path, rtx: FakeRtx
    ) -> None:
        assert self.run(rtx_plan) == ""
        assert rtx.compiled == [(1, 32, 32, 3)]
        kept = cache.cache_file(rtx_plan)
        first, _, kernels = kept.read_bytes().partition(b"\n")
        head = json.loads(first)
        assert (head["gpu"], head["driver"], head["engine"]) == (ADA.name, "580.1", f"TensorRT-RTX {RELEASE}")
        assert json.loads(kernels) == [[1, 32, 32, 3]]
        before = kept.stat().st_mtime_ns
        assert self.run(rtx_plan) == ""
        assert len(rtx.compiled) == 1
        assert kept.stat().st_mtime_ns == before
        assert self.run(rtx_plan, 64) == ""
        assert rtx.compiled[1:] == [(1, 64, 64, 3)]
        assert self.run(rtx_plan, 64) == self.run(rtx_plan) == ""
        assert len(rtx.compiled) == 2
        assert sorted(path.name for path in rtx_plan.parent.iterdir()) == [
            "box.onnx", "box.plan", "box.plan.cache", "box.plan.json",
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("change", "words"),
        [
            ({"gpu": "Another"}, f"made for gpu Another, here it is {ADA.name}"),
            ({"capability": [9, 0]}, "made for capability 9.0, here it is 8.9"),
            ({"driver": "1.2"}, "made for driver 1.2, here it is 580.1"),
            ({"engine": "TensorRT-RTX 1.0"}, "made for engine TensorRT-RTX 1.0, here it is TensorRT-RTX"),
            ({"plan_sha256": "0"}, "made for another plan"),
            ({"sha256": "0"}, "damaged (its checksum differs)"),
            ({"format": 2}, "made for format 2, here it is 1"),
            ({"surprise": 1}, "damaged or of another release"),
        ],
    )
    def test_kernels_of_another_machine_are_named_and_replaced(
        self, change: dict[str, object], words: str, rtx_plan: Path, rtx: FakeRtx
    ) -> None:
        self.run(rtx_plan)
        kept = cache.cache_file(rtx_plan)
        first, _, kernels = kept.read_bytes().partition(b"\n")
        kept.write_bytes(json.dumps(json.loads(first) | change).encode() + b"\n" + kernels)
        note = self.run(rtx_plan)
        assert note.startswith(f"{kept}: not used, because it ")
        assert words in note
        assert len(rtx.compiled) == 2
        assert self.run(rtx_plan) == ""
        assert len(rtx.compiled) == 2

    def test_kernels_that_the_engine_does_not_take(self, rtx_plan: Path, rtx: FakeRtx) -> None:
        self.run(rtx_plan)
        rtx.refuses_kernels = True
        assert f"not used, because TensorRT-RTX {RELEASE} does not take it" in self.run(rtx_plan)
        cache.cache_file(rtx_plan).write_bytes(b"\xff" * 10_000)
        assert "damaged or of another release" in self.run(rtx_plan)

    def test_a_folder_that_takes_no_file_is_no_obstacle(self, rtx_plan: Path, rtx: FakeRtx) -> None:
        cache.cache_file(rtx_plan).mkdir()
        assert "cannot be read" in self.run(rtx_plan)
        assert len(rtx.compiled) == 1


def test_cuda_bindings_are_asked_for(plan: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    monkeypatch.setitem(sys.modules, "cuda", None)
    with pytest.raises(BackendError, match="pip install cuda-bindings"):
        open_backend(plan, options=Options(fallback="none"))


class TestFit:
    """Whatever does not fit is said in one line, before anything is deserialised."""

    @pytest.fixture(autouse=True)
    def _nothing_is_deserialised(self, engine: FakeTrt, monkeypatch: pytest.MonkeyPatch) -> None:
        def never(*_: object) -> None:
            raise AssertionError("deserialised")

        monkeypatch.setattr(FakeTrt, "deserialize_cuda_engine", never)

    def refuses(self, plan: Path, **options: object) -> str:
        with pytest.raises((BackendError, ModelError)) as caught:
            open_backend(plan, options=Options(fallback="none", **options))  # type: ignore[arg-type]
        text = str(caught.value)
        assert text.startswith((str(plan), str(plans.sidecar(plan))))
        assert "\n" not in text
        return text

    def test_release(self, plan: Path, box_spec: ModelSpec) -> None:
        write_sidecar(plan, box_spec, release="98.0")
        assert f"built by TensorRT 98.0, but TensorRT {RELEASE} is installed here" in self.refuses(plan)

    def test_flavour(self, plan: Path, box_spec: ModelSpec) -> None:
        write_sidecar(plan, box_spec, flavour="tensorrt_rtx")
        assert "built by TensorRT-RTX 99.1.2.3, which is not installed here" in self.refuses(plan)

    def test_capability(self, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(opening, "list_gpus", lambda: (BLACKWELL,))
        expected = "built for compute capability 8.6 or 8.9, but Make-believe Blackwell has 12.0"
        assert expected in self.refuses(plan)

    def test_no_gpu(self, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(opening, "list_gpus", tuple)
        assert "and there is none here" in self.refuses(plan)

    def test_changed_bytes(self, plan: Path) -> None:
        plan.write_bytes(b"plan of a villain")
        assert "its bytes are not those that its sidecar describes" in self.refuses(plan)

    def test_changed_onnx(self, plan: Path) -> None:
        with plan.with_name("box.onnx").open("ab") as file:
            file.write(b"\0")
        assert "box.onnx has changed since it was built" in self.refuses(plan, trust_plan=True)

    def test_no_sidecar(self, plan: Path) -> None:
        plans.sidecar(plan).unlink()
        text = self.refuses(plan)
        assert "has no sidecar box.plan.json" in text
        assert "trust_plan=True" in text

    def test_damaged_sidecars(self, plan: Path) -> None:
        path = plans.sidecar(plan)
        record = json.loads(path.read_text())
        newer = "found 99, written by a newer release of cellseg than this one; build the plan again"
        # What else a newer format holds is not blamed.
        path.write_text(json.dumps({**record, "format": 99, "surprise": 1, "profile": "auto"}))
        assert f"(format 2): format: {newer}" in self.refuses(plan)
        path.write_text(json.dumps({**record, "spec": {**record["spec"], "format": 99, "heads": {}}}))
        assert f"(format 2): spec.format: {newer}" in self.refuses(plan)
        path.write_text(json.dumps({**record, "format": 0}))
        assert "format: found 0, which this release does not read" in self.refuses(plan)
        path.write_text(json.dumps({**record, "surprise": 1}))
        assert "surprise" in self.refuses(plan)
        path.write_text("{")
        assert "does not fit this release" in self.refuses(plan)
        path.write_bytes(b"\xff\xfe\xfd")
        assert "cannot be read" in self.refuses(plan)

    @pytest.mark.parametrize(
        "change",
        [
            lambda record: record["spec"].update(halo=8),
            lambda record: record["spec"]["split"].update(min_area=500),
            lambda record: record["profile"].update(tile=[4, 32, 64]),
            lambda record: record.pop("seal"),
        ],
        ids=["halo", "splitter", "profile", "seal"],
    )
    def test_an_altered_sidecar(self, change: Callable[[dict[str, object]], None], plan: Path) -> None:
        """What the plan computes is sealed with it; ``--trust-plan`` is about the plan's bytes alone."""
        path = plans.sidecar(plan)
        record = json.loads(path.read_text())
        change(record)
        path.write_text(json.dumps(record))
        for trust in (False, True):
            assert "changed or damaged since the plan was built" in self.refuses(plan, trust_plan=trust)
        with pytest.raises(ModelError, match="changed or damaged"):
            load_spec(plan)

    @pytest.mark.parametrize(
        "name",
        [
            "", ".", "..", "../box.onnx", "/etc/box.onnx", "sub/box.onnx", "sub\\box.onnx", "C:box.onnx",
            "é" * 130 + ".onnx", "box\n.onnx", "box\0.onnx", "box", "box.plan", ".onnx/..",
            "x" * 300 + ".onnx",
        ],
    )  # fmt: skip
    def test_a_sidecar_names_a_file_beside_it(self, name: str, plan: Path) -> None:
        path = plans.sidecar(plan)
        path.write_text(json.dumps({**json.loads(path.read_text()), "onnx": name}))
        text = self.refuses(plan)
        assert "onnx: found" in text
        assert "wanted the name of an .onnx file next to the plan" in text
        assert len(text) < 400

    def test_odd_sidecars(self, plan: Path) -> None:
        path = plans.sidecar(plan)
        record = json.loads(path.read_text())
        for change in ({"release": "1\n2"}, {"capabilities": ["8.9\n"]}, {"release": "9" * 10_000}):
            path.write_text(json.dumps({**record, **change}))
            assert f"{next(iter(change))}" in self.refuses(plan)
        path.write_text("[" * 100_000)
        assert "does not fit this release" in self.refuses(plan)
        path.write_text(json.dumps({**record, "gpu": "x" * (2 << 20)}))
        assert "larger than" in self.refuses(plan)

    def test_no_such_plan(self, plan: Path) -> None:
        plan.unlink()
        with pytest.raises(ModelError, match="no such"):
            open_backend(plan)

    def test_plans_do_not_run_on_a_cpu(self, plan: Path) -> None:
        with pytest.raises(UsageError, match=r"tensorrt runs \.plan files on cuda, not on cpu"):
            open_backend(plan, "cpu")


def test_what_was_checked_is_what_is_loaded(
    plan: Path, engine: FakeTrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A plan that is exchanged after its check is not what is deserialised."""
    loaded: list[bytes] = []
    take, checked = FakeTrt.deserialize_cuda_engine, plans.misfit

    def exchange(*arguments: object, **options: object) -> str | None:
        reason = checked(*arguments, **options)  # type: ignore[arg-type]
        plan.write_bytes(b"plan of a villain")
        return reason

    monkeypatch.setattr(plans, "misfit", exchange)
    monkeypatch.setattr(
        FakeTrt, "deserialize_cuda_engine", lambda self, data: loaded.append(data) or take(self, data)
    )
    open_backend(plan, options=Options(fallback="none")).close()
    assert loaded == [b"plan of a box"]


class TestTrust:
    OPTIONS = Options(fallback="none", trust_plan=True)

    def test_changed_bytes_are_run(self, plan: Path, cuda: FakeCuda) -> None:
        plan.write_bytes(b"plan of my own")
        with open_backend(plan, options=self.OPTIONS) as backend:
            assert backend.tiles == (4, 128)

    def test_a_bare_plan_is_asked_for_its_profile(self, plan: Path, cuda: FakeCuda) -> None:
        plans.sidecar(plan).unlink()
        with open_backend(plan, options=self.OPTIONS) as backend:
            assert (backend.spec.name, backend.tiles, backend.largest_batch) == ("box", (4, 128), 4)

    def test_a_bare_plan_must_be_known(self, plan: Path, engine: FakeTrt) -> None:
        plans.sidecar(plan).unlink()
        engine.tensors = ["input", "logits"]
        with pytest.raises(BackendError, match="not a plan of ours: it has input, logits"):
            open_backend(plan, options=self.OPTIONS)
        plan.with_name("box.onnx").unlink()
        with pytest.raises(ModelError, match=r"neither sidecar nor box\.onnx"):
            open_backend(plan, options=self.OPTIONS)

    def test_a_bare_plan_needs_a_gpu_and_an_engine(
        self, plan: Path, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        plans.sidecar(plan).unlink()
        monkeypatch.setattr(plans, "installed_release", lambda flavour: None)
        with pytest.raises(BackendError, match="no TensorRT is installed to run it"):
            open_backend(plan, options=self.OPTIONS)
        monkeypatch.setattr(opening, "list_gpus", tuple)
        with pytest.raises(BackendError, match="needs an NVIDIA GPU"):
            open_backend(plan, options=self.OPTIONS)

    def test_without_a_gpu_the_onnx_runs(self, plan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        plans.sidecar(plan).unlink()
        monkeypatch.setattr(opening, "list_gpus", tuple)
        with open_backend(plan, options=Options(trust_plan=True)) as backend:
            assert backend.name == "openvino"
            assert "needs an NVIDIA GPU, and there is none here: box.onnx runs on openvino" in backend.note


class TestFallback:
    def test_without_a_gpu_the_onnx_runs_and_says_so(
        self, plan: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(opening, "list_gpus", tuple)
        batch = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
        with open_backend(plan) as backend:
            backend.prepare(32, 1)
            np.testing.assert_array_equal(backend.submit(batch).result(), box_planes(batch))
            assert backend.name == "openvino"
            for part in (
                "box.plan: built",
                "no GPU to build it for",
                "box.onnx runs on openvino (cpu) instead",
            ):
                assert part in backend.note

    def test_without_an_onnx_there_is_nothing_to_do(
        self, plan: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(opening, "list_gpus", tuple)
        plan.with_name("box.onnx").unlink()
        with pytest.raises(BackendError, match=r"there is no box\.onnx next to it"):
            open_backend(plan)

    def test_a_misfit_is_built_anew(
        self, plan: Path, box_spec: ModelSpec, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        before = write_sidecar(plan, box_spec, release="98.0", workspace=1 << 30)
        told: list[tuple[float, str]] = []
        commands: list[list[str]] = []

        def build(command: list[str], progress: Callable[[float, str], None] | None) -> None:
            commands.append(command)
            assert progress is not None
            progress(1.0, "Building engine")
            plan.write_bytes(b"plan rebuilt")
            write_sidecar(plan, box_spec)

        monkeypatch.setattr(opening, "_run", build)
        options = Options(rebuilding=lambda done, phase: told.append((done, phase)))
        with open_backend(plan, options=options) as backend:
            assert backend.name == "tensorrt"
            assert "built by TensorRT 98.0" in backend.note
            assert "rebuilt" in backend.note
        assert told == [(1.0, "Building engine")]
        assert commands[0][1:5] == ["-m", opening.BUILDER, str(plan.with_name("box.onnx")), str(plan)]
        wanted = json.loads(commands[0][5])
        assert wanted == {
            "flavour": "tensorrt", "workspace": 1 << 30, "profile": before.profile.model_dump(mode="json"),
        }  # fmt: skip

    def test_eight_at_once_build_once(
        self, plan: Path, box_spec: ModelSpec, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        record = write_sidecar(plan, box_spec, release="98.0")
        built: list[int] = []

        def build(command: list[str], progress: object) -> None:
            built.append(1)
            plan.write_bytes(b"plan rebuilt")
            write_sidecar(plan, box_spec)

        monkeypatch.setattr(opening, "_run", build)
        # Locks of one process on handles of its own exclude one another as those of eight processes do.
        threads = [
            threading.Thread(target=opening.rebuild, args=(plan, plan.with_name("box.onnx"), record, ADA))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert built == [1]

    def test_a_failed_build_leaves_the_onnx(
        self, plan: Path, box_spec: ModelSpec, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_sidecar(plan, box_spec, release="98.0")
        crash = [sys.executable, "-c", "import sys; print('0.5 half'); sys.exit('no memory left')"]
        run = opening._run
        monkeypatch.setattr(opening, "_run", lambda _, progress: run(crash, progress))
        with open_backend(plan) as backend:
            assert backend.name == "openvino"
            assert "it could not be rebuilt (no memory left)" in backend.note

    @pytest.mark.parametrize("release", [RELEASE, "98.0"], ids=["fits", "rebuilt"])
    def test_a_plan_that_is_not_taken_leaves_the_onnx(
        self, release: str, plan: Path, box_spec: ModelSpec, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Sidecar and machine agree, and the engine refuses it all the same: before and after a rebuild."""

        def build(command: list[str], progress: object) -> None:
            plan.write_bytes(b"noise of another kind")
            write_sidecar(plan, box_spec)

        plan.write_bytes(b"noise")
        write_sidecar(plan, box_spec, release=release)
        monkeypatch.setattr(opening, "_run", build)
        with open_backend(plan) as backend:
            assert backend.name == "openvino"
            assert backend.note.count("does not take it: the magic tag does not match") == 1
            assert "box.onnx runs on openvino (cpu) instead" in backend.note

    def test_without_the_builder_the_onnx_runs(
        self, plan: Path, box_spec: ModelSpec, cuda: FakeCuda, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write_sidecar(plan, box_spec, release="98.0")
        monkeypatch.setattr(opening, "BUILDER", "cellseg.nothing")
        with open_backend(plan) as backend:
            assert "no engine is installed to build it with" in backend.note


def test_releases_are_read_without_importing() -> None:
    for flavour in FLAVOURS.values():
        release = plans.installed_release(flavour)
        assert release is None or release[0].isdigit()


@pytest.mark.parametrize(
    ("files", "release"),
    [
        ({"tensorrt/__init__.py": "__version__ = '10.3.0'\n"}, "10.3.0"),  # a Linux distribution's package
        (
            {
                "tensorrt/__init__.py": "from tensorrt_bindings import *\n",
                "tensorrt_bindings/__init__.py": 'import x\n__version__ = "11.1.0.5"\n',
            },
            "11.1.0.5",
        ),
        *(
            (
                {
                    "tensorrt/__init__.py": "",
                    f"{name}-12.0.dist-info/METADATA": f"Name: {name}\nVersion: 12.0\n",
                    "tensorrt_llm-1.0.dist-info/METADATA": "Name: tensorrt_llm\nVersion: 1.0\n",
                    "tensorrt_rtx-1.4.dist-info/METADATA": "Name: tensorrt-rtx\nVersion: 1.4\n",
                },
                "12.0",
            )
            for name in ("tensorrt", "tensorrt-cu12", "tensorrt_cu13", "tensorrt-cu13-bindings")
        ),
        ({"tensorrt/__init__.py": ""}, "of unknown release"),
        ({}, None),
    ],
)
def test_a_release_is_found_whatever_brought_it(
    files: dict[str, str], release: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From pip with CUDA's number or without, from Linux distributions, from containers."""
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    for name in [name for name in sys.modules if name.startswith("tensorrt")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    # Packages' records are found by the path's own finder, or by that of a newer importlib_metadata.
    by_path = [each for each in sys.meta_path if hasattr(each, "find_distributions")]
    by_path = [each for each in by_path if "editable" not in repr(each).lower()]
    monkeypatch.setattr(sys, "meta_path", [importlib.machinery.PathFinder, *by_path])
    plans._release.cache_clear()
    try:
        assert plans.installed_release(FLAVOURS["tensorrt"]) == release
        assert plans.installed_release(FLAVOURS["tensorrt_rtx"]) is None
    finally:
        plans._release.cache_clear()


@pytest.fixture(scope="module")
def real_plan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The default model as a plan for this machine's GPU."""
    if not gpus.list_gpus():
        pytest.skip("no NVIDIA GPU")
    if all(plans.installed_release(flavour) is None for flavour in FLAVOURS.values()):
        pytest.skip("neither TensorRT nor TensorRT-RTX is installed")
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    from cellseg.export.to_tensorrt import build
    from cellseg.runtime.model.catalog import default_model

    folder = tmp_path_factory.mktemp("gpu")
    onnx = folder / "m.onnx"
    onnx.write_bytes(default_model().read_bytes())
    build(onnx, folder / "m.plan")
    return folder / "m.plan"


@pytest.mark.gpu
class TestOnAGpu(BackendConformance):
    """The default model through the real engine, built on the spot."""

    tolerance = 2

    @pytest.fixture
    def model_path(self, real_plan: Path) -> Path:
        return real_plan

    def open(self, path: Path) -> Backend:
        return open_backend(path, options=Options(fallback="none"))


@pytest.mark.gpu
def test_compiled_kernels_serve_the_next_start(real_plan: Path) -> None:
    with open_backend(real_plan, options=Options(fallback="none")) as backend:
        if backend.name != "tensorrt_rtx":
            pytest.skip("TensorRT compiles its kernels when it builds")
        backend.prepare(backend.spec.tile, 1)
        batch = np.random.default_rng(1).integers(0, 256, backend.new_batch().shape, np.uint8)
        planes = backend.submit(batch).result()
    kept = cache.cache_file(real_plan).read_bytes()
    with open_backend(real_plan, options=Options(fallback="none")) as backend:
        assert backend.note == ""
        backend.prepare(backend.spec.tile, 1)
        np.testing.assert_array_equal(backend.submit(batch).result(), planes)
    assert cache.cache_file(real_plan).read_bytes() == kept


@pytest.mark.gpu
def test_a_real_plan_gives_the_planes_of_the_cpu(real_plan: Path) -> None:
    rng = np.random.default_rng(0)
    with open_backend(real_plan) as plan, open_backend(real_plan.with_suffix(".onnx"), "cpu") as cpu:
        tile = plan.spec.tile
        batch = rng.integers(0, 256, (1, tile, tile, plan.spec.channels), np.uint8)
        planes = []
        for backend in (plan, cpu):
            backend.prepare(tile, 1)
            planes.append(backend.submit(batch).result().astype(int))
        assert np.abs(planes[0] - planes[1]).mean() < 0.5
