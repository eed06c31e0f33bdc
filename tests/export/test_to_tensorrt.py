"""TensorRT-RTX really builds here, with no GPU; classic TensorRT is asked for in vain."""

import importlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import onnx
import pytest

from cellseg.export import to_tensorrt
from cellseg.export.assemble import Exported
from cellseg.export.to_tensorrt import Settings, build, check_profile, default_profile, usable_flavour
from cellseg.runtime.backends.gpus import Gpu, list_gpus
from cellseg.runtime.backends.trt import plans, runner
from cellseg.runtime.backends.trt.plans import FLAVOURS, Profile
from cellseg.runtime.errors import BackendError, ModelError, UsageError

pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed (pip install 'cellseg[rtx]')")
ONE = Settings(flavour="tensorrt_rtx", capabilities=("8.9",))


@pytest.fixture(scope="module")
def plan(exported: Exported, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "tiny.plan"
    build(exported.path, path, ONE)
    return path


def test_a_plan_is_built_with_its_sidecar(exported: Exported, plan: Path) -> None:
    record = plans.load_record(plan)
    assert record.spec == exported.spec
    assert record.onnx == "tiny.onnx"
    assert record.onnx_sha256 == plans.sha256(exported.path)
    assert record.plan_sha256 == plans.sha256(plan)
    assert record.flavour == "tensorrt_rtx"
    assert record.release == plans.installed_release(FLAVOURS["tensorrt_rtx"])
    assert record.capabilities == ("8.9",)
    assert record.profile == default_profile(exported.spec)
    assert record.precision == "fp32"
    assert record.build_seconds > 0
    assert record.parity["passed"] == 1
    assert sorted(path.name for path in plan.parent.iterdir()) == ["tiny.plan", "tiny.plan.json"]


def test_a_plan_is_raw(plan: Path) -> None:
    """Nothing is prepended: trtexec and Triton must be able to read it."""
    assert plan.read_bytes()[:4] == b"vtrt"  # the engine's own mark


@pytest.mark.parametrize("static", [False, True], ids=["dynamic", "static"])
def test_profiles(exported: Exported, tmp_path: Path, static: bool) -> None:
    halo = exported.spec.halo
    edge = 2 * halo + 64
    profile = (
        Profile(batch=(4, 4, 4), tile=(edge, edge, edge))
        if static
        else Profile(batch=(1, 2, 4), tile=(edge, edge + 64, edge + 128))
    )
    record = build(
        exported.path, tmp_path / "m.plan", Settings("tensorrt_rtx", profile, capabilities=("8.9",))
    )
    assert record.profile == profile


def test_half_precision_builds(exported_half: Exported, tmp_path: Path) -> None:
    record = build(exported_half.path, tmp_path / "m.plan", ONE)
    assert record.precision == "fp16"


def test_several_capabilities_are_built_for(exported: Exported, tmp_path: Path) -> None:
    record = build(exported.path, tmp_path / "m.plan", Settings("tensorrt_rtx", capabilities=("8.6", "12.0")))
    assert record.capabilities == ("8.6", "12.0")
    with pytest.raises(UsageError, match=r"does not build for compute capability 3\.5; it knows 7\.5, 8\.0"):
        build(exported.path, tmp_path / "n.plan", Settings("tensorrt_rtx", capabilities=("3.5",)))


def test_progress_is_told_and_ends_whole(exported: Exported, tmp_path: Path) -> None:
    told: list[tuple[float, str]] = []
    build(exported.path, tmp_path / "m.plan", ONE, lambda done, phase: told.append((done, phase)))
    fractions = [done for done, _ in told]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
    assert len(fractions) > 3


class TestFailures:
    @pytest.fixture
    def target(self, tmp_path: Path) -> Path:
        """A plan that stood there before."""
        (tmp_path / "m.plan").write_bytes(b"a former good one")
        (tmp_path / "m.plan.json").write_text("its sidecar")
        return tmp_path / "m.plan"

    @pytest.fixture(autouse=True)
    def _nothing_changes(self, target: Path) -> object:
        yield
        assert target.read_bytes() == b"a former good one"
        assert plans.sidecar(target).read_text() == "its sidecar"
        assert {path.suffix for path in target.parent.iterdir()} <= {".plan", ".json", ".onnx", ".cache"}
        assert not [path for path in target.parent.iterdir() if path.name.startswith(".")]

    def test_parser_words_are_passed_on(self, exported: Exported, target: Path) -> None:
        model = onnx.load(exported.path)
        next(node for node in model.graph.node if node.op_type == "Relu").op_type = "Frobnicate"
        del model.metadata_props[1:]  # the seal: the file is changed on purpose
        path = target.with_name("bad.onnx")
        onnx.save(model, path)
        with pytest.raises(ModelError, match=r"bad\.onnx: TensorRT-RTX .* cannot parse it: .*Frobnicate"):
            build(path, target, ONE)

    def test_builder_words_are_passed_on(self, exported: Exported, target: Path) -> None:
        with pytest.raises(BackendError, match=r"cannot build it: .*workspace"):
            build(exported.path, target, Settings("tensorrt_rtx", workspace=1 << 16, capabilities=("8.9",)))

    def test_what_is_no_model_of_ours(self, target: Path) -> None:
        noise = target.with_name("noise.onnx")
        noise.write_bytes(b"no protobuf at all")
        with pytest.raises(ModelError, match=r"noise\.onnx: not an ONNX model"):
            build(noise, target, ONE)

    def test_a_gpu_that_the_release_does_not_run_on(
        self, exported: Exported, target: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Asked with the least graph before anything is built; here there is no GPU, so it runs on none."""
        if list_gpus():
            pytest.skip("this machine has a GPU")
        unknown = Gpu(0, "Make-believe Hopper", (9, 0), 80 << 30)
        monkeypatch.setattr(to_tensorrt, "list_gpus", lambda: (unknown,))
        monkeypatch.setattr(to_tensorrt._Build, "run", lambda *_: pytest.fail("was built all the same"))
        with pytest.raises(
            BackendError, match=r"does not run on Make-believe Hopper, .* 9\.0 \(it knows"
        ) as caught:
            build(exported.path, target, Settings("tensorrt_rtx"))
        assert "ONNX Runtime (pip install 'cellseg[gpu]') may" in str(caught.value)

    def test_a_failed_check_of_the_plan(self, exported: Exported, target: Path) -> None:
        def check(path: Path) -> dict[str, float]:
            assert plans.load_record(path).spec == exported.spec
            raise ModelError("the plan differs")

        with pytest.raises(ModelError, match="the plan differs"):
            build(exported.path, target, ONE, check=check)

    def test_ctrl_c_during_the_build(self, exported: Exported, target: Path) -> None:
        def interrupt(done: float, phase: str) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        before = signal.getsignal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            build(exported.path, target, ONE, interrupt)
        assert signal.getsignal(signal.SIGINT) is before

    def test_options_that_cannot_be(self, exported: Exported, target: Path) -> None:
        with pytest.raises(UsageError, match="TensorRT-RTX keeps no timing cache"):
            build(exported.path, target, Settings("tensorrt_rtx", timing_cache=target.with_name("t.cache")))
        with pytest.raises(BackendError, match=r"TensorRT (is not installed|needs an NVIDIA GPU)"):
            build(exported.path, target, Settings("tensorrt"))


def test_a_runtime_hears_the_engine_after_a_build(plan: Path) -> None:
    """Builder and runtime share one logger, so it does not matter which of them the engine saw first."""
    engine = importlib.import_module("tensorrt_rtx")
    log = runner.error_log(engine)
    log.messages.clear()
    assert engine.Runtime(log).deserialize_cuda_engine(b"noise") is None
    assert log.messages


def test_a_check_adds_its_figures(exported: Exported, tmp_path: Path) -> None:
    build(exported.path, tmp_path / "m.plan", ONE, check=lambda path: {"plan.plane_max": 1.0})
    assert plans.load_record(tmp_path / "m.plan").parity["plan.plane_max"] == 1
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("batch", "tile", "message"),
    [
        ((1, 4, 2), (128, 128, 128), "batch sizes 1,4,2: wanted smallest ≤ preferred ≤ largest"),
        ((0, 1, 1), (128, 128, 128), "batch sizes 0,1,1"),
        ((1, 1, 1), (128, 129, 256), "129 is not a multiple of 4"),
        ((1, 1, 1), (8, 8, 8), "the largest leaves no core"),
    ],
)
def test_impossible_profiles(
    exported: Exported, batch: tuple[int, int, int], tile: tuple[int, int, int], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        check_profile(Profile(batch=batch, tile=tile), exported.spec)


def test_default_profile_serves_what_the_grid_asks_for(exported: Exported) -> None:
    profile = default_profile(exported.spec)
    check_profile(profile, exported.spec)
    assert profile.tile[0] <= 2 * exported.spec.halo + exported.spec.multiple
    assert profile.tile[1] == exported.spec.tile


class TestWithoutAGpu:
    @pytest.fixture(autouse=True)
    def _no_gpu(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(to_tensorrt, "list_gpus", tuple)

    def test_rtx_is_taken(self) -> None:
        assert usable_flavour().name == "tensorrt_rtx"

    def test_classic_says_what_it_needs(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plans, "installed_release", lambda flavour: "10.13")
        with pytest.raises(BackendError, match="TensorRT needs an NVIDIA GPU and its driver to build"):
            usable_flavour("tensorrt")

    def test_neither_installed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(plans, "installed_release", lambda flavour: None)
        with pytest.raises(BackendError, match=r"TensorRT is not installed .*\[tensorrt\].*\[rtx\]"):
            usable_flavour()


def test_bindings_without_their_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.11: cannot open shared object')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BackendError, match=r"does not load: libnvinfer\.so\.11"):
        to_tensorrt._load(FLAVOURS["tensorrt"])


def test_every_rebuild_is_a_process_of_its_own(exported: Exported, tmp_path: Path) -> None:
    """As the runtime does it; neither torch nor onnx is needed."""
    hide = "import sys; sys.modules['torch'] = sys.modules['onnx'] = None; "
    run = "from cellseg.export.to_tensorrt import main; sys.exit(main(sys.argv[1:]))"
    target = tmp_path / "m.plan"
    done = subprocess.run(
        [sys.executable, "-c", hide + run, exported.path, target, '{"flavour": "tensorrt_rtx"}'],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("1.000")
    assert plans.load_record(target).flavour == "tensorrt_rtx"
    failed = subprocess.run(
        [sys.executable, "-c", hide + run, tmp_path / "none.onnx", target, "{}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert failed.returncode == 1
    assert "none.onnx: no such model file" in failed.stderr
