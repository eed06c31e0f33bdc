from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellseg.runtime.errors import ModelError
from cellseg.runtime.model.onnx_metadata import SEAL_KEY, load_spec, read_metadata, respecify, seal
from cellseg.runtime.model.spec import METADATA_KEY, ModelSpec

Writer = Callable[..., Path]


def test_round_trip(model_path: Path, box_spec: ModelSpec) -> None:
    assert load_spec(model_path) == box_spec


def test_every_entry_and_any_text(tmp_path: Path, write_model: Writer) -> None:
    extra = {"author": "Zoë", "long": "µ" * 5000, "empty": ""}
    path = write_model(tmp_path / "m.onnx", spec=None, extra=extra)
    assert read_metadata(path) == extra


def test_not_ours(tmp_path: Path, write_model: Writer) -> None:
    path = write_model(tmp_path / "m.onnx", spec=None)
    with pytest.raises(ModelError, match=r"m\.onnx: an ONNX model, but not one of ours"):
        load_spec(path)


def test_a_specification_of_another_release(tmp_path: Path, write_model: Writer) -> None:
    path = write_model(tmp_path / "m.onnx", spec=None, extra={METADATA_KEY: '{"format": 99}'})
    with pytest.raises(ModelError, match=r"m\.onnx: .*export the model again"):
        load_spec(path)


def test_missing_or_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such model file"):
        read_metadata(tmp_path / "none.onnx")
    with pytest.raises(ModelError, match="cannot be read"):
        read_metadata(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"hello, world", b"\x89PNG\r\n\x1a\n" * 40, bytes(100), b"\xff" * 100]
)
def test_other_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX model"):
        load_spec(path)


def test_a_sealed_file_stays_an_onnx_model(tmp_path: Path, write_model: Writer, box_spec: ModelSpec) -> None:
    path = write_model(tmp_path / "m.onnx", spec=box_spec)
    seal(path)
    assert load_spec(path) == box_spec
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    assert model.metadata_props[-1].key == SEAL_KEY
    with pytest.raises(ModelError, match="sealed already"):
        seal(path)


@pytest.mark.parametrize("was_sealed", [False, True])
def test_a_file_takes_another_specification(
    tmp_path: Path, write_model: Writer, box_spec: ModelSpec, was_sealed: bool
) -> None:
    old, new = tmp_path / "old.onnx", tmp_path / "new.onnx"
    write_model(old, spec=box_spec, extra={"author": "Zoë"})
    if was_sealed:
        seal(old)
    before = old.read_bytes()
    other = box_spec.model_copy(update={"name": "µ" * 200, "tile": 512})
    respecify(old, new, other)
    assert old.read_bytes() == before
    assert load_spec(new) == other
    assert read_metadata(new)["author"] == "Zoë"
    assert set(read_metadata(new)) == {"author", METADATA_KEY, SEAL_KEY}
    one, two = onnx.load(old), onnx.load(new)
    onnx.checker.check_model(two, full_check=True)
    assert len(two.metadata_props) == 3
    assert one.graph == two.graph
    respecify(new, old, box_spec)
    assert load_spec(old) == box_spec


def test_a_damaged_file_takes_no_specification(tmp_path: Path, sealed: bytes, box_spec: ModelSpec) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(sealed[:100] + b"?" + sealed[101:])
    with pytest.raises(ModelError, match=r"m\.onnx"):
        respecify(path, tmp_path / "new.onnx", box_spec)
    assert not (tmp_path / "new.onnx").exists()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_damage_to_a_sealed_file_is_named(data: st.DataObject, tmp_path: Path, sealed: bytes) -> None:
    content = bytearray(sealed)
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content) - 90)) :]
        content += bytes(data.draw(st.integers(0, 90)))
    else:
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
    path = tmp_path / "m.onnx"
    path.write_bytes(content)
    try:
        spec = load_spec(path)
    except ModelError as error:
        text = str(error)
    else:  # only the seal's own name was hit
        text, content[-80:] = f"m.onnx {spec.name}", sealed[-80:]
        assert content == sealed
    assert "m.onnx" in text


@pytest.fixture(scope="session")
def sealed(tmp_path_factory: pytest.TempPathFactory, write_model: Writer, box_spec: ModelSpec) -> bytes:
    path = write_model(tmp_path_factory.mktemp("sealed") / "m.onnx", spec=box_spec)
    seal(path)
    return path.read_bytes()


def test_does_not_read_the_graph(tmp_path: Path, model_path: Path) -> None:
    """A graph field of a terabyte, in a sparse file, is skipped."""
    size = 1 << 40
    length = bytearray()
    while size > 127:
        length.append(size & 127 | 128)
        size >>= 7
    length.append(size)
    path = tmp_path / "m.onnx"
    with path.open("wb") as file:
        file.write(b"\x3a" + length)
        file.seek(1 << 40, 1)
        file.write(model_path.read_bytes())
    assert METADATA_KEY in read_metadata(path)
