"""From an ONNX file to a TensorRT plan with its sidecar: the one module that builds.

TensorRT (10, 11) and TensorRT-RTX share their Python API; what sets them apart stands in
:data:`cellseg.runtime.backends.trt.plans.FLAVOURS`. Precision lives in the graph, so there is nothing to
choose here. Needs neither torch nor onnx: the runtime has a plan rebuilt through ``python -m`` of this
module.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import json
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from cellseg.runtime.backends.gpus import list_gpus
from cellseg.runtime.backends.trt import plans
from cellseg.runtime.backends.trt.plans import FLAVOURS, Flavour, PlanRecord, Profile
from cellseg.runtime.backends.trt.runner import error_log
from cellseg.runtime.common.files import replacing, write
from cellseg.runtime.errors import BackendError, CellsegError, ModelError, UsageError
from cellseg.runtime.model import onnx_metadata
from cellseg.runtime.model.spec import INPUT_NAME, ModelSpec

#: Told how far a build is, 0…1, and what it does.
Progress = Callable[[float, str], None]
#: What TensorRT says of every call on a machine without a GPU; it never is the cause of a failed build.
_NO_GPU_NOISE = "CUDA driver version is insufficient"


@dataclass(frozen=True, slots=True)
class Settings:
    """How a plan is to be built."""

    #: Which engine; ``None`` takes the one that can build here.
    flavour: str | None = None
    #: Sizes; ``None`` derives them from the model.
    profile: Profile | None = None
    #: Scratch memory in bytes; ``None`` for the engine's own choice.
    workspace: int | None = None
    #: File of earlier timings, read where it exists and written afterwards; TensorRT only.
    timing_cache: Path | None = None
    #: Compute capabilities to build for, such as ``8.9``; TensorRT-RTX only. Empty for this machine's
    #: GPU, or for all that the release knows where there is none.
    capabilities: tuple[str, ...] = ()


def usable_flavour(name: str | None = None) -> Flavour:
    """Return the engine that can build here.

    Parameters
    ----------
    name
        Insist on one; ``None`` prefers TensorRT, which tunes on this very GPU, where it can build.

    Raises
    ------
    BackendError
        None is installed, or what is installed needs a GPU and there is none.
    """
    problems = []
    for flavour in FLAVOURS.values() if name is None else (FLAVOURS[name],):
        if plans.installed_release(flavour) is None:
            problems.append(f"{flavour.title} is not installed ({flavour.install})")
        elif not flavour.portable and not list_gpus():
            # Its builder raises TypeError without a GPU, and its runtime can crash the process.
            problems.append(
                f"{flavour.title} needs an NVIDIA GPU and its driver to build, and there is none here"
            )
        else:
            return flavour
    raise BackendError("; ".join(problems))


def default_profile(spec: ModelSpec) -> Profile:
    """Return sizes that serve small pictures, the preferred tile, and what is fastest on large GPUs.

    The engine takes memory for the sizes that are run, not for the largest.
    """
    # 256 and up, rounded to the multiple, is also what an export is compared on.
    smallest = min(2 * spec.halo + spec.multiple, -(-256 // spec.multiple) * spec.multiple)
    largest = 2048 // spec.multiple * spec.multiple
    return Profile(
        batch=(1, spec.batch, max(8, spec.batch)), tile=(smallest, spec.tile, max(largest, spec.tile))
    )


def check_profile(profile: Profile, spec: ModelSpec) -> None:
    """Raise UsageError where `profile` cannot be built or would serve no tile."""
    for name, values in (("batch", profile.batch), ("tile", profile.tile)):
        if not 1 <= values[0] <= values[1] <= values[2]:
            raise UsageError(
                f"{name} sizes {_sizes(values)}: wanted smallest ≤ preferred ≤ largest, 1 at least"
            )
    for tile in profile.tile:
        if tile % spec.multiple:
            raise UsageError(
                f"tile sizes {_sizes(profile.tile)}: {tile} is not a multiple of {spec.multiple}"
            )
    if profile.tile[2] <= 2 * spec.halo:
        raise UsageError(
            f"tile sizes {_sizes(profile.tile)}: the largest leaves no core inside a halo of {spec.halo}"
        )


def build(
    onnx: Path,
    plan: Path,
    settings: Settings | None = None,
    progress: Progress | None = None,
    check: Callable[[Path], dict[str, float]] | None = None,
) -> PlanRecord:
    """Build `plan` and its sidecar from `onnx`; both appear together or not at all.

    Parameters
    ----------
    check
        Called with the finished plan's temporary path, its sidecar next to it, before it takes its
        place; returns parity figures for the sidecar or raises.

    Raises
    ------
    ModelError
        The ONNX file is not ours.
    UsageError
        The profile or a capability cannot be.
    BackendError
        The engine is missing or cannot build the graph; the message has its own words.
    KeyboardInterrupt
        Ctrl-C during the build, once the builder has stopped.
    """
    settings = settings or Settings()
    spec = onnx_metadata.load_spec(onnx)
    flavour = usable_flavour(settings.flavour)
    profile = settings.profile or default_profile(spec)
    check_profile(profile, spec)
    if settings.timing_cache is not None and not flavour.timing_cache:
        raise UsageError(f"{flavour.title} keeps no timing cache; leave it out")
    engine = _load(flavour)
    if flavour.portable and not settings.capabilities:
        _check_gpu(engine, flavour)
    with replacing(plan) as partial:
        began = time.perf_counter()
        graph = onnx.read_bytes()
        data, capabilities = _Build(engine, flavour, settings, profile, progress).run(onnx, graph)
        write(partial, data)
        gpus = list_gpus()
        record = PlanRecord(
            spec=spec,
            onnx=onnx.name,
            onnx_sha256=hashlib.sha256(graph).hexdigest(),
            plan_sha256=hashlib.sha256(data).hexdigest(),
            flavour=flavour.name,
            release=engine.__version__,
            gpu=gpus[0].name if gpus else None,
            capabilities=capabilities,
            profile=profile,
            precision=spec.precision,
            workspace=settings.workspace,
            build_seconds=round(time.perf_counter() - began, 3),
            parity=dict(spec.parity),
        )
        with replacing(plans.sidecar(plan)) as described:
            write(described, _text(record))
            if check is not None:
                record_path = plans.sidecar(partial)
                try:
                    write(record_path, _text(record))
                    record = record.model_copy(update={"parity": {**record.parity, **check(partial)}})
                finally:
                    record_path.unlink(missing_ok=True)
                write(described, _text(record))
        # The sidecar first: one that does not fit its plan is noticed, a plan without one is not used.
    return record.sealed()


def _text(record: PlanRecord) -> bytes:
    """Return a sidecar as it stands in the file."""
    return record.sealed().model_dump_json(indent=1).encode()


def _load(flavour: Flavour) -> Any:
    try:
        return importlib.import_module(flavour.name)
    except (ImportError, OSError) as error:  # the bindings install without their libraries
        raise BackendError(
            f"{flavour.title} is installed but does not load: {error}; {flavour.install}"
        ) from None


def _check_gpu(engine: Any, flavour: Flavour) -> None:
    """Raise BackendError where a release does not run on the GPU here: the least graph tells, at once."""
    gpu = next(iter(list_gpus()), None)
    known = _capabilities(engine)
    if gpu is None or ".".join(map(str, gpu.capability)) in known:
        return
    log = error_log(engine)
    log.messages.clear()
    builder = engine.Builder(log)
    network = builder.create_network(0)
    network.mark_output(network.add_identity(network.add_input("least", engine.float32, (1,))).get_output(0))
    config = builder.create_builder_config()
    config.num_compute_capabilities = 1
    config.set_compute_capability(engine.ComputeCapability.CURRENT, 0)
    built = builder.build_serialized_network(network, config)
    if built is None or engine.Runtime(log).deserialize_cuda_engine(bytes(memoryview(built))) is None:
        raise BackendError(
            f"{flavour.title} {engine.__version__} does not run on {gpu.name}, of compute capability "
            f"{'.'.join(map(str, gpu.capability))} (it knows {', '.join(known)}): {log.latest()}; TensorRT "
            f"({FLAVOURS['tensorrt'].install}) and ONNX Runtime (pip install 'cellseg[gpu]') may"
        )


class _Build:
    """One build and everything the engine says during it."""

    def __init__(
        self, engine: Any, flavour: Flavour, settings: Settings, profile: Profile, progress: Progress | None
    ) -> None:
        self.engine, self.flavour, self.settings, self.profile = engine, flavour, settings, profile
        self.progress = progress
        self.title = f"{flavour.title} {engine.__version__}"
        self.log = error_log(engine)
        self.log.messages.clear()

    def run(self, onnx: Path, graph: bytes) -> tuple[bytes, tuple[str, ...]]:
        """Return the plan of a graph, the content of `onnx`, and the compute capabilities that it is for."""
        engine = self.engine
        builder = engine.Builder(self.log)
        network = builder.create_network(self._flags())
        parser = engine.OnnxParser(network, self.log)
        if not parser.parse(graph):
            errors = [_parser_message(parser.get_error(index)) for index in range(parser.num_errors)]
            raise ModelError(f"{onnx}: {self.title} cannot parse it: {'; '.join(errors) or self._messages()}")
        config = builder.create_builder_config()
        if self.settings.workspace is not None:
            config.set_memory_pool_limit(engine.MemoryPoolType.WORKSPACE, self.settings.workspace)
        # Single precision means single: TF32 would round its products to ten bits unasked.
        config.clear_flag(engine.BuilderFlag.TF32)
        self._add_profile(builder, config, network)
        capabilities = self._set_capabilities(config)
        self._load_timings(config)
        with _interruptible() as interrupted:
            config.progress_monitor = _monitor(engine, self.progress, interrupted)
            built = builder.build_serialized_network(network, config)
            if interrupted.is_set():
                raise KeyboardInterrupt
        if built is None:
            raise BackendError(f"{onnx}: {self.title} cannot build it: {self._messages()}")
        self._save_timings(config)
        return bytes(memoryview(built)), capabilities

    def _flags(self) -> int:
        # What TensorRT 10 needs to be told is the only way in TensorRT-RTX and from TensorRT 11 on.
        typed = getattr(self.engine.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
        return 0 if typed is None else 1 << int(typed)

    def _add_profile(self, builder: Any, config: Any, network: Any) -> None:
        channels = network.get_input(0).shape[-1]
        shapes = [
            (batch, tile, tile, channels)
            for batch, tile in zip(self.profile.batch, self.profile.tile, strict=True)
        ]
        profile = builder.create_optimization_profile()
        profile.set_shape(INPUT_NAME, *shapes)
        if config.add_optimization_profile(profile) < 0:
            raise BackendError(f"{self.title} refuses the profile {shapes}: {self._messages()}")

    def _set_capabilities(self, config: Any) -> tuple[str, ...]:
        gpus = list_gpus()
        here = tuple(".".join(map(str, gpu.capability)) for gpu in gpus[:1])
        if not self.flavour.portable:
            if self.settings.capabilities:
                raise UsageError(f"{self.flavour.title} builds for the GPU of this machine only, {here[0]}")
            return here
        known = _capabilities(self.engine)
        if here and not self.settings.capabilities and here[0] not in known:
            # One that the release has no name for, and may run on all the same.
            known = {here[0]: self.engine.ComputeCapability.CURRENT}
        names = self.settings.capabilities or here or tuple(known)
        for name in names:
            if name not in known:
                raise UsageError(
                    f"{self.title} does not build for compute capability {name}; it knows {', '.join(known)}"
                )
        config.num_compute_capabilities = len(names)
        for index, name in enumerate(names):
            config.set_compute_capability(known[name], index)
        return names

    def _load_timings(self, config: Any) -> None:
        path = self.settings.timing_cache
        if path is not None:
            old = path.read_bytes() if path.is_file() else b""
            config.set_timing_cache(config.create_timing_cache(old), False)

    def _save_timings(self, config: Any) -> None:
        if self.settings.timing_cache is not None:
            with replacing(self.settings.timing_cache) as partial:
                write(partial, bytes(memoryview(config.get_timing_cache().serialize())))

    def _messages(self) -> str:
        """Return the engine's own errors, the first as the cause before what follows from it."""
        telling = [text for text in self.log.messages if _NO_GPU_NOISE not in text]
        chosen = telling or list(self.log.messages) or ["it gave no reason"]
        return "; ".join(dict.fromkeys(" ".join(text.split()) for text in chosen[:3]))


def _parser_message(error: Any) -> str:
    where = f" (node {error.node_name()}, {error.node_operator()})" if error.node_operator() else ""
    return " ".join(error.desc().split()) + where


def _capabilities(engine: Any) -> dict[str, Any]:
    """Return the compute capabilities that a release knows, by name: ``SM89`` is 8.9, ``SM120`` is 12.0."""
    members = engine.ComputeCapability.__members__
    numbers = {name: name.removeprefix("SM") for name in members if name.startswith("SM")}
    return {f"{number[:-1]}.{number[-1]}": members[name] for name, number in numbers.items()}


def _monitor(engine: Any, progress: Progress | None, interrupted: threading.Event) -> Any:
    class Monitor(engine.IProgressMonitor):  # type: ignore[misc]  # known only at run time
        """Follows the outermost phases and stops the build when asked to."""

        def __init__(self) -> None:
            engine.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            if parent is None:
                self.steps[phase] = max(1, steps)

        def step_complete(self, phase: str, step: int) -> bool:
            if progress is not None and phase in self.steps:
                progress(min(1.0, (step + 1) / self.steps[phase]), phase)
            return not interrupted.is_set()

        def phase_finish(self, phase: str) -> None:
            if progress is not None and phase in self.steps:
                progress(1.0, phase)

    return Monitor()


@contextlib.contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """Let Ctrl-C set an event: raised inside the engine's callback it would end the process."""
    interrupted = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield interrupted  # signals reach the main thread alone
        return

    def note(_: int, __: FrameType | None) -> None:
        interrupted.set()

    before = signal.signal(signal.SIGINT, note)
    try:
        yield interrupted
    finally:
        signal.signal(signal.SIGINT, before)


def _sizes(values: tuple[int, int, int]) -> str:
    return ",".join(map(str, values))


def main(arguments: list[str]) -> int:
    """Rebuild a plan as its sidecar says: ``python -m cellseg.export.to_tensorrt ONNX PLAN SETTINGS``.

    Progress goes to stdout, one ``fraction phase`` a line; the reason for a failure to stderr.
    """
    onnx, plan, text = arguments
    wanted = json.loads(text)
    profile = Profile.model_validate_json(json.dumps(wanted["profile"])) if wanted.get("profile") else None
    settings = Settings(wanted.get("flavour"), profile, wanted.get("workspace"))
    try:
        build(Path(onnx), Path(plan), settings, lambda done, phase: print(f"{done:.3f} {phase}", flush=True))
    except CellsegError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
