import dataclasses
import json
import os
import re
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from cellseg.export import assemble, cli, parity, sizes
from cellseg.export.assemble import Exported
from cellseg.runtime.backends.trt import plans
from cellseg.runtime.errors import ModelError
from cellseg.runtime.model.onnx_metadata import SEAL_KEY, load_spec, read_metadata
from cellseg.runtime.model.spec import METADATA_KEY, CellDiameter, ModelSpec, ScoreRule, SplitSettings
from cellseg.train import checkpoint as checkpoints
from cellseg.train.models import build_model

from .conftest import small_config, write_checkpoint


def run(*args: object) -> tuple[int, str]:
    chosen = [] if "--plan" in args or "--default-plan" in args else ["--no-plan"]
    words = [str(arg) for arg in args if arg != "--default-plan"]
    result = CliRunner().invoke(cli.main, [*words, *chosen])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def refuses(*args: object, code: int = 1) -> str:
    """Run, expect one line of error and `code`, and return the line."""
    found, output = run(*args)
    lines = [line for line in output.splitlines() if "error:" in line]
    assert (found, len(lines)) == (code, 1), output
    assert "Traceback" not in output
    return lines[0]


def test_an_export_tells_what_it_did(exported: Exported, said: list[str]) -> None:
    text = "\n".join(said)
    for phrase in (
        "step 7, weights",
        "kept mask, boundary, density; stripped none",
        "GFLOP/Mpx",
        "bytes equal the whole image's",
        "24 generated tiles",
        "limit",
        f"written     {exported.path}",
    ):
        assert phrase in text
    assert exported.spec.parity["passed"] == 1
    assert exported.spec.halo == exported.spec.parity["halo_exact"] <= 44
    assert exported.spec.receptive_field == 43
    assert exported.spec.tile > 2 * exported.spec.halo


def test_an_export_is_sealed(exported: Exported, tmp_path: Path) -> None:
    assert SEAL_KEY in read_metadata(exported.path)
    onnx.checker.check_model(onnx.load(exported.path), full_check=True)
    data = bytearray(exported.path.read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(ModelError, match=r"m\.onnx: changed or damaged since it was exported"):
        load_spec(tmp_path / "m.onnx")


@pytest.mark.parametrize("halo", [0, 8, 64, 96, 200])
def test_preferred_tile_is_mostly_core(halo: int) -> None:
    tile = assemble.preferred_tile(halo, 8)
    assert tile % 256 == 0
    assert (tile - 2 * halo) ** 2 >= assemble.USEFUL * tile**2
    assert tile == 256 or (tile - 256 - 2 * halo) ** 2 < assemble.USEFUL * (tile - 256) ** 2


def test_how_large_the_cells_are_is_measured(checkpoint: Path, tmp_path: Path) -> None:
    labels = np.zeros((40, 60), np.uint16)
    labels[5:25, 5:25], labels[5:25, 30:50] = 1, 2
    (tmp_path / "data" / "label").mkdir(parents=True)
    assert cv2.imwrite(str(tmp_path / "data" / "label" / "a.png"), labels)
    for number, said in enumerate((tmp_path / "data", "22.6,11.3,45.1")):
        target = tmp_path / f"{number}.onnx"
        code, output = run(checkpoint, "-o", target, "--diameter", said)
        assert code == 0, output
        assert load_spec(target).diameter == CellDiameter(median=22.6, low=11.3, high=45.1)


def test_inspect_prints_the_spec(exported: Exported) -> None:
    shown = CliRunner().invoke(cli.main, ["inspect", str(exported.path)])
    assert shown.exit_code == 0
    assert ModelSpec.from_json(shown.stdout, "stdout").name == "tiny"


def test_inspect_refuses_what_is_not_ours(tmp_path: Path) -> None:
    stranger = tmp_path / "stranger.onnx"
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph([], "g", [], [])), stranger)
    result = CliRunner().invoke(cli.main, ["inspect", str(stranger)])
    assert result.exit_code == 1
    assert METADATA_KEY in result.output


def test_the_newest_checkpoint_is_taken_and_named(
    tmp_path: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "work_dirs: holds no best.pt" in refuses()
    state = checkpoints.load(checkpoint)
    network = build_model(small_config())
    network.load_state_dict(state["model"])
    for age, name in ((200, "older"), (100, "newer")):
        path = write_checkpoint(tmp_path / "work_dirs" / name / "best.pt", small_config(), network)
        stamp = path.stat().st_mtime - age
        os.utime(path, (stamp, stamp))
    split = SplitSettings(mask_threshold=100)
    (tmp_path / "split.json").write_text(split.model_dump_json())
    code, output = run("--split", "split.json", "--halo", "near", "--name", "mine", "--tile", "96")
    assert code == 0, output
    assert "work_dirs/newer/best.pt (the newest best.pt under work_dirs)" in output
    assert "kept mask; stripped boundary" in output
    assert re.search(r"^next: cellseg-tune \S+/train --engine (\S+)\.onnx -o \1\.tuned\.onnx$", output, re.M)
    spec = load_spec(tmp_path / "work_dirs/newer/newer.onnx")
    assert (spec.name, spec.tile, spec.head_names, spec.split) == ("mine", 96, ("mask",), split)
    assert spec.halo == spec.parity["halo_near"]


ALL = ("--heads", "mask,boundary,density")


class TestParityFails:
    @pytest.fixture(autouse=True)
    def _impossible_limits(self, monkeypatch: pytest.MonkeyPatch) -> None:
        impossible = parity.Limits(-1, -1, 2, 2, 2, -1)
        monkeypatch.setattr(parity, "LIMITS", dict.fromkeys(parity.LIMITS, impossible))

    def test_nothing_is_written(self, checkpoint: Path, tmp_path: Path) -> None:
        output = tmp_path / "m.onnx"
        output.write_bytes(b"a former good one")
        command = (checkpoint, "-o", output, "--overwrite", *ALL)
        assert "not written, because the exported model differs" in refuses(*command)
        assert output.read_bytes() == b"a former good one"
        assert list(tmp_path.iterdir()) == [output]

    def test_force_writes_and_records_it(self, checkpoint: Path, tmp_path: Path) -> None:
        output = tmp_path / "m.onnx"
        code, text = run(checkpoint, "-o", output, "--force", *ALL)
        assert code == 0, text
        assert "fp32 fails: plane_max" in text
        assert load_spec(output).parity["passed"] == 0


class TestBfloat16Fails:
    """The graph is right, and a processor's own arithmetic costs too much."""

    @pytest.fixture(autouse=True)
    def _a_processor_with_bfloat16(self, monkeypatch: pytest.MonkeyPatch) -> None:
        good = parity.Figures(0, 0, 1, 1, 1, 0, 24, 100)
        bad = dataclasses.replace(good, mask_iou=0.98704)
        monkeypatch.setattr(parity, "check", lambda *_: {"fp32": good, "bf16": bad})

    def test_it_is_written_and_says_so(self, checkpoint: Path, tmp_path: Path) -> None:
        output = tmp_path / "m.onnx"
        code, text = run(checkpoint, "-o", output, *ALL)
        assert code == 0, text
        assert "bf16 fails: mask_iou 0.98704 (at least 0.995)" in text
        assert "so it runs in fp32 on processors that would compute in bf16" in text
        spec = load_spec(output)
        assert (spec.unfit, spec.parity["passed"]) == (("bf16",), 1)
        assert spec.parity["bf16.mask_iou"] == 0.98704


@pytest.mark.usefixtures("exported")  # traced before the size of files is limited
class TestTheFormerArtefactStays:
    @pytest.fixture
    def output(self, tmp_path: Path) -> Path:
        """A model that stood there before."""
        (tmp_path / "m.onnx").write_bytes(b"a former good one")
        return tmp_path / "m.onnx"

    @pytest.fixture(autouse=True)
    def _nothing_changes(self, output: Path) -> object:
        yield
        assert output.read_bytes() == b"a former good one"
        assert list(output.parent.iterdir()) == [output]

    def test_unless_it_may_be_replaced(self, checkpoint: Path, output: Path) -> None:
        line = refuses(checkpoint, "-o", output, *ALL, code=2)
        assert "m.onnx: exists already; replace it with --overwrite or choose another place with -o" in line
        plan = output.rename(output.with_suffix(".plan"))
        line = refuses(checkpoint, "-o", output, "--plan", plan, *ALL, code=2)
        assert (
            "m.plan: exists already; replace it with --overwrite or choose another place with --plan" in line
        )
        plan.rename(output)

    def test_when_the_disk_is_full(self, checkpoint: Path, output: Path) -> None:
        """A limit on the size of files breaks the write half-way, as a full disk does."""
        resource = pytest.importorskip("resource")
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        try:
            line = refuses(checkpoint, "-o", output, "--overwrite", *ALL)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert "MB cannot be written (File too large); free space or choose another place with -o" in line

    def test_when_interrupted(self, checkpoint: Path, output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def interrupt(path: Path, *_: object) -> None:
            assert path.stat().st_size > 20_000  # the new model is there, under another name
            os.kill(os.getpid(), signal.SIGINT)

        monkeypatch.setattr(parity, "check", interrupt)
        assert "interrupted" in refuses(checkpoint, "-o", output, "--overwrite", *ALL, code=130)

    def test_when_the_place_is_read_only(self, checkpoint: Path, output: Path) -> None:
        folder = Path("/proc/sys") if os.geteuid() == 0 else output.parent / "locked"
        if os.geteuid() != 0:
            folder.mkdir(mode=0o555)
        elif not folder.is_dir():
            pytest.skip("nothing is read-only to this user")
        line = refuses(checkpoint, "-o", folder / "m.onnx", *ALL)
        assert "m.onnx: cannot be written there" in line
        assert "choose another place with -o" in line
        if os.geteuid() != 0:
            folder.rmdir()


def test_what_is_not_installed_is_told(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("onnxscript", "yaml"):
        monkeypatch.setitem(sys.modules, name, None)
    line = refuses(checkpoint, code=2)
    assert "needs onnxscript, yaml, not installed here: pip install 'cellseg[export]'" in line


class TestBadInput:
    def test_checkpoints(self, tmp_path: Path, checkpoint: Path) -> None:
        assert "nowhere.pt: no such checkpoint" in refuses(tmp_path / "nowhere.pt")
        noise = tmp_path / "noise.pt"
        noise.write_bytes(b"no checkpoint at all")
        assert "noise.pt: cannot be read as a checkpoint" in refuses(noise)
        foreign = tmp_path / "foreign.pt"
        torch.save({"state_dict": {}}, foreign)
        assert "found no cellseg checkpoint" in refuses(foreign)
        newer = tmp_path / "newer.pt"
        torch.save({"cellseg_checkpoint": 99}, newer)
        assert "found format 99" in refuses(newer)
        bare = tmp_path / "bare.pt"
        checkpoints.save(bare, {"config": {}})
        assert "bare.pt: lacks 'model'" in refuses(bare)
        unknown = tmp_path / "unknown.pt"
        checkpoints.save(unknown, {"config": {"model": "GPT"}, "model": {}})
        assert "model" in refuses(unknown)
        truncated = tmp_path / "truncated.pt"
        truncated.write_bytes(checkpoint.read_bytes()[:5000])
        assert "truncated.pt: cannot be read" in refuses(truncated)

    def test_architecture_mismatch(self, tmp_path: Path) -> None:
        other = build_model(small_config(init_channel_number=8))
        path = write_checkpoint(tmp_path / "w" / "best.pt", small_config(), other)
        line = refuses(path)
        assert (
            "its weights do not fit the network that its configuration names (MCUNET, depth 2, width 4)"
            in line
        )

    def test_weights_that_are_no_numbers(self, tmp_path: Path) -> None:
        network = build_model(small_config())
        with torch.no_grad():
            next(network.parameters()).fill_(float("nan"))
        path = write_checkpoint(tmp_path / "w" / "best.pt", small_config(), network)
        assert "holds NaN or infinity; export an earlier checkpoint" in refuses(path)

    def test_diameters(self, checkpoint: Path, tmp_path: Path) -> None:
        target = ("-o", tmp_path / "m.onnx")
        for wrong, words in {
            "20,10": "wanted three numbers",
            "20,ten,30": "wanted three numbers",
            "20,21,30": "wanted low ≤ median ≤ high, found 21, 20, 30",
            "20,-1,30": "low: Input should be greater than 0",
            "nan,1,2": "median: Input should be",
        }.items():
            assert words in refuses(checkpoint, *target, "--diameter", wrong, code=2)
        assert "none: no such folder" in refuses(checkpoint, *target, "--diameter", tmp_path / "none")
        assert not (tmp_path / "m.onnx").exists()

    def test_options(self, checkpoint: Path, tmp_path: Path) -> None:
        assert "--opset 17: wanted 20…23" in refuses(checkpoint, "--opset", 17, code=2)
        assert "'wings': this network has mask, boundary" in refuses(
            checkpoint, "--heads", "mask,wings", code=2
        )
        assert "--halo 30: must be a multiple of 4" in refuses(checkpoint, "--halo", 30, code=2)
        assert "--tile 333: must be a multiple of 4" in refuses(checkpoint, "--tile", 333, code=2)
        assert "--halo wide: wanted exact" in refuses(checkpoint, "--halo", "wide", code=2)
        assert "must end in .onnx" in refuses(checkpoint, "-o", tmp_path / "m.pt", code=2)
        assert "is a folder" in refuses(checkpoint, "-o", folder(tmp_path / "f.onnx"), code=2)
        wrong = tmp_path / "split.json"
        wrong.write_text('{"sharpness": 1}')
        assert "split.json: sharpness" in refuses(checkpoint, "--split", wrong, code=2)
        assert "cannot be read" in refuses(checkpoint, "--split", tmp_path / "none.json", code=2)
        rule = ScoreRule(constant=0, inside={"mask": 1, "density": 1}, area=0, minimum=0)
        wrong.write_text(SplitSettings(score=rule).model_dump_json())
        line = refuses(checkpoint, "--split", wrong, code=2)
        assert "more planes than are kept; add --heads mask,density" in line

    def test_a_tile_without_core(self, checkpoint: Path, tmp_path: Path) -> None:
        line = refuses(checkpoint, "-o", tmp_path / "m.onnx", "--halo", 40, "--tile", 64, code=2)
        assert "--tile 64 leaves no core inside a halo of 40" in line

    def test_parity_folder(self, checkpoint: Path, tmp_path: Path) -> None:
        output = tmp_path / "m.onnx"
        line = refuses(checkpoint, "-o", output, "--parity", tmp_path / "nowhere")
        assert "nowhere: no such folder" in line
        assert not output.exists()


def folder(path: Path) -> Path:
    path.mkdir()
    return path


class TestPlan:
    def test_a_named_plan_is_built_and_inspected(
        self, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pytest.importorskip("tensorrt_rtx", reason="TensorRT-RTX is not installed")
        output, plan = tmp_path / "m.onnx", tmp_path / "m.plan"
        monkeypatch.setattr(sizes, "TILES", (96, 128))
        monkeypatch.setattr(sizes, "SECONDS", 0.0)
        options = ("--capability", "8.9", "--batch-sizes", "1,2,4", "--tile-sizes", "128,256,512")
        options = (*options, "--halo", "16", "--tile", "auto")
        code, text = run(
            checkpoint, "-o", output, "--plan", plan, "--flavour", "tensorrt_rtx", *options, *ALL
        )
        assert code == 0, text
        assert f"plan        {plan}" in text
        shown = CliRunner().invoke(cli.main, ["inspect", str(plan)])
        record = plans.PlanRecord.model_validate_json(shown.output)
        assert (record.profile.batch, record.profile.tile) == ((1, 2, 4), (128, 256, 512))
        assert record.capabilities == ("8.9",)
        measured = [line.split() for line in text.splitlines() if line.startswith(" " * 12)]
        fastest = next(row for row in measured if row[0] in ("96", "128"))  # they are told in this order
        assert [str(record.spec.tile), str(record.spec.batch)] == fastest[:2]
        by_sidecar = CliRunner().invoke(cli.main, ["inspect", str(plans.sidecar(plan))])
        assert by_sidecar.output == shown.output
        newer = json.loads(by_sidecar.output) | {"format": 9}
        plans.sidecar(plan).write_text(json.dumps(newer))
        for name in (plan, plans.sidecar(plan)):
            shown = CliRunner().invoke(cli.main, ["inspect", str(name)])
            assert shown.exit_code == 1
            assert "m.plan.json: does not fit this release (format 2): format: found 9" in shown.output
        nothing = CliRunner().invoke(cli.main, ["inspect", str(tmp_path / "none.plan.json")])
        assert nothing.exit_code == 1
        assert "none.plan.json: cannot be read" in nothing.output

    def test_a_plan_that_was_not_asked_for_may_be_missing(
        self, checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plans, "installed_release", lambda flavour: None)
        output = tmp_path / "m.onnx"
        code, text = run(checkpoint, "-o", output, "--default-plan", *ALL)
        assert code == 0, text
        assert "plan        none: TensorRT is not installed (pip install" in text
        assert list(tmp_path.iterdir()) == [output]
        line = refuses(checkpoint, "-o", output, "--overwrite", "--plan", tmp_path / "m.plan", *ALL)
        assert "TensorRT is not installed" in line

    def test_options(self, checkpoint: Path, tmp_path: Path) -> None:
        plan = tmp_path / "m.plan"
        assert "must end in .plan" in refuses(checkpoint, "--plan", tmp_path / "m.engine", code=2)
        assert "excludes --no-plan" in refuses(checkpoint, "--plan", plan, "--no-plan", code=2)
        assert "wanted three numbers" in refuses(checkpoint, "--batch-sizes", "1,2", code=2)
        assert "wanted three numbers" in refuses(checkpoint, "--tile-sizes", "a,b,c", code=2)
