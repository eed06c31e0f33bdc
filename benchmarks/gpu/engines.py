"""One model and one slide through each engine of a GPU: alone, end to end, and how busy the GPU was.

    python benchmarks/gpu/engines.py run tensorrt --folder out [--size 16384] [--tile 1536] [--batch 4]
    python benchmarks/gpu/engines.py table out

Engines: ``tensorrt`` (a plan by TensorRT or TensorRT-RTX, built on the spot), ``onnxruntime`` (CUDA), and
PyTorch as ``torch-eager-fp16``, ``torch-compiled-bf16`` and so on, which computes what was exported from
the weights in the ONNX file. Each is timed as ``benchmarks/end_to_end.py`` does, on the same slide, in
a process of its own, and its planes of one picture are compared with those of the CPU in single precision.
``run`` writes ``FOLDER/ENGINE.json``; ``table`` makes ``FOLDER/engines.md`` of all that are there.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import click
import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from end_to_end import make_slide, parse_size, run_engine
from host import Done
from nuclei_placing import place
from peers import torch_network
from readme import table
from slide_canvas import Fluorescence

from cellseg.runtime.backends import Backend, Options, Pending, load_spec, open_backend
from cellseg.runtime.backends.engines import ENGINES, resolve_model
from cellseg.runtime.backends.gpus import list_gpus
from cellseg.runtime.common.heap import steady_heap
from cellseg.runtime.errors import CellsegError
from cellseg.runtime.model.spec import ModelSpec
from cellseg.runtime.options import SegmentOptions
from cellseg.runtime.results.report import PACKAGES

TORCH = tuple(f"torch-{how}-{dtype}" for how in ("eager", "compiled") for dtype in ("fp16", "bf16", "fp32"))
WAYS = ("tensorrt", "onnxruntime", *TORCH)
#: Edge of the picture on which planes are compared, pixels.
COMPARED = 512


class Torch(Backend):
    """PyTorch as a backend: what was exported, with the weights of the ONNX file.

    Parameters
    ----------
    path, spec
        The model.
    device
        ``cpu`` or ``cuda:N``.
    dtype
        ``fp16``, ``bf16`` or ``fp32``, of weights and tensors alike.
    compiled
        Whether ``torch.compile`` comes first.
    """

    name = "pytorch"

    def __init__(self, path: Path, spec: ModelSpec, device: str, dtype: str, *, compiled: bool) -> None:
        import torch

        super().__init__(spec)
        self.device = device
        self._words = f"{dtype}, {'compiled' if compiled else 'eager'}"
        torch.backends.cudnn.benchmark = True  # the sizes stay the same
        types = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
        network = torch_network(path, spec).to(device, types[dtype], memory_format=torch.channels_last)
        module = _exported(network, spec, types[dtype])
        self._module = torch.compile(module, dynamic=False) if compiled else module
        self._streams: Any = None
        if device != "cpu":
            self.in_flight = 3
            # Copies of one batch go on during the computing of another.
            self._streams = itertools.cycle([torch.cuda.Stream(device) for _ in range(2)])

    @property
    def description(self) -> str:
        """One line about how the model runs."""
        return f"{self.name} on {self.device} ({self._words})"

    def new_batch(self) -> NDArray[np.uint8]:
        """Return a batch in memory that the GPU reads by itself."""
        return self._pinned(super().new_batch().shape)

    def new_planes(self) -> NDArray[np.uint8]:
        """Return planes in memory that the GPU writes by itself."""
        return self._pinned(super().new_planes().shape)

    def _pinned(self, shape: tuple[int, ...]) -> NDArray[np.uint8]:
        import torch

        array: NDArray[np.uint8] = torch.empty(
            shape, dtype=torch.uint8, pin_memory=self._streams is not None
        ).numpy()
        return array

    def _prepare(self, tile: int, batch: int) -> None:
        """Nothing to do: the first batches of a size choose and compile what it needs."""

    def _submit(self, batch: NDArray[np.uint8], planes: NDArray[np.uint8]) -> Pending:
        import torch

        source, target = torch.from_numpy(batch), torch.from_numpy(planes)
        with torch.inference_mode():
            if self._streams is None:
                target.copy_(self._module(source))
                return Done(planes)
            stream = next(self._streams)
            with torch.cuda.stream(stream):
                target.copy_(self._module(source.to(self.device, non_blocking=True)), non_blocking=True)
                return _Running(stream.record_event(), batch, planes)


class _Running:
    """One submitted batch, and the memory that it uses."""

    def __init__(self, event: Any, batch: NDArray[np.uint8], planes: NDArray[np.uint8]) -> None:
        self._event, self._batch, self._planes = event, batch, planes

    def result(self) -> NDArray[np.uint8]:
        """Wait for the planes."""
        self._event.synchronize()
        return self._planes


def _exported(network: Any, spec: ModelSpec, dtype: Any) -> Any:
    """Return the exported module around a network whose norms are folded and heads fused already."""
    from torch import Tensor, nn

    from cellseg.export.graph import Deployable

    class Cast(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.to(dtype)

    module = Deployable.__new__(Deployable)
    nn.Module.__init__(module)
    module.network, module.heads = nn.Sequential(Cast(), network), spec.heads  # type: ignore[assignment]
    return module.eval()


class Utilisation:
    """Samples the GPU through ``nvidia-smi`` while entered; finds nothing where there is none."""

    QUERY = ("utilization.gpu", "utilization.memory", "memory.used", "power.draw")
    EVERY_MS = 100

    def __init__(self, index: int = 0) -> None:
        self._index = index
        self._process: subprocess.Popen[str] | None = None
        #: Mean of each queried value, and the number of samples.
        self.found: dict[str, float] = {}

    def __enter__(self) -> Self:
        """Start sampling."""
        if list_gpus() and (tool := shutil.which("nvidia-smi")):
            command = [tool, f"--id={self._index}", f"--query-gpu={','.join(self.QUERY)}"]
            command += ["--format=csv,noheader,nounits", f"--loop-ms={self.EVERY_MS}"]
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop sampling."""
        if self._process is not None:
            self._process.terminate()
            self.found = self.means(self._process.communicate()[0])

    @classmethod
    def means(cls, text: str) -> dict[str, float]:
        """Average the lines of ``nvidia-smi``; a value that it does not know (``[N/A]``) is left out."""
        values: dict[str, list[float]] = {name: [] for name in cls.QUERY}
        for line in text.splitlines():
            for name, word in zip(cls.QUERY, line.split(","), strict=False):
                try:
                    values[name].append(float(word))
                except ValueError:
                    continue
        means = {name: sum(each) / len(each) for name, each in values.items() if each}
        return means | {"samples": max(map(len, values.values()))}


def missing(way: str, device: str) -> str | None:
    """Return why an engine cannot run here, or ``None``."""
    if device != "cpu" and not list_gpus():
        return "no GPU"
    if way in TORCH:
        import torch

        return None if device == "cpu" or torch.cuda.is_available() else "PyTorch finds no GPU"
    reasons = [row.missing() for row in ENGINES if row.kind == "cuda" and row.name.startswith(way)]
    return None if None in reasons else "; ".join(dict.fromkeys(filter(None, reasons)))


def open_way(way: str, model: Path, device: str, folder: Path) -> Backend:
    """Open a model on an engine; a plan is built in ``folder`` first."""
    if way in TORCH:
        _, how, dtype = way.split("-")
        where = "cuda:0" if device == "cuda" else device
        return Torch(model, load_spec(model), where, dtype, compiled=how == "compiled")
    if way == "tensorrt":
        from cellseg.export.to_tensorrt import build

        copy, plan = folder / model.name, folder / f"{model.stem}.plan"
        shutil.copyfile(model, copy)
        record = build(copy, plan)
        click.echo(f"{plan.name}: {record.title}, built in {record.build_seconds:.1f} s")
        return open_backend(plan, device, options=Options(fallback="none"))
    return open_backend(model, device, engine=way)


def difference(backend: Backend, model: Path) -> dict[str, float]:
    """Compare the planes of one picture with those of the CPU in single precision, in bytes."""
    edge = COMPARED
    nuclei = place(edge, edge, round(edge * edge * 1e-3), seed=1)
    grey = Fluorescence(nuclei, edge, edge, seed=1).pixels(0, 0, edge, edge, np.dtype(np.uint8))
    channels = backend.spec.channels
    batch = np.ascontiguousarray(np.broadcast_to(grey.reshape(1, edge, edge, 1), (1, edge, edge, channels)))
    found = []
    with open_backend(model, "cpu", options=Options(precision="fp32")) as reference:
        for engine in (backend, reference):
            engine.prepare(edge, 1)
            found.append(engine.submit(batch).result().astype(np.int16))
    apart = np.abs(found[0] - found[1])
    return {"plane_max": float(apart.max()), "plane_mean": float(apart.mean())}


def machine() -> dict[str, Any]:
    """Return the GPU's name and the versions of what ran."""
    gpus = list_gpus()
    versions = {}
    for name in (*PACKAGES, "torch", "triton", "tensorrt-rtx-cu12", "nvidia-cudnn-cu13"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {"gpu": gpus[0].name if gpus else None, "versions": versions}


@click.group()
def main() -> None:
    """Measure the engines of a GPU."""


@main.command()
@click.argument("way", type=click.Choice(WAYS), metavar="ENGINE")
@click.option("--folder", type=click.Path(path_type=Path), required=True, help="Figures, slide and plan.")
@click.option("--model", help="ONNX file or a packaged model's name.")
@click.option("--device", default="cuda", show_default=True, help="cuda, cuda:N, or cpu for PyTorch.")
@click.option("--size", default="16384", show_default=True, metavar="N|WxH", help="Of the slide, pixels.")
@click.option("--tile", type=int, help="Edge of a tile; the model's by default.")
@click.option("--batch", type=int, help="Tiles in a batch; the model's by default.")
def run(
    way: str, folder: Path, model: str | None, device: str, size: str, tile: int | None, batch: int | None
) -> None:
    """Time ENGINE alone and end to end, and write FOLDER/ENGINE.json."""
    steady_heap()
    if reason := missing(way, device):
        click.echo(f"skipped: {reason}")
        return
    folder.mkdir(parents=True, exist_ok=True)
    height, width = parse_size(size)
    slide, path = folder / f"slide_{height}x{width}.tif", resolve_model(model)
    if not slide.exists():
        make_slide(height, width, slide)
    watch = Utilisation()
    try:
        with open_way(way, path, device, folder) as backend:
            apart = difference(backend, path)
            found = run_engine(
                slide, backend, folder / f"{way}_cells", watch, SegmentOptions(tile=tile, batch=batch)
            )
    except CellsegError as error:
        raise click.ClickException(str(error)) from None
    finally:
        shutil.rmtree(folder / f"{way}_cells", ignore_errors=True)
    record = {"way": way, "height": height, "width": width} | machine() | found | apart
    record["utilisation"] = watch.found
    (folder / f"{way}.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    click.echo(table(HEAD, [row(record)]))


HEAD = [
    "engine", "tile", "batch", "engine alone, Mpx/s", "end to end, Mpx/s", "ratio", "GPU busy, %",
    "bytes apart, mean",
]  # fmt: skip


def row(record: dict[str, Any]) -> list[str]:
    """Return the cells of :data:`HEAD` for one engine."""
    busy = record["utilisation"].get("utilization.gpu")
    return [
        f"{record['way']}: {record['engine']}",
        str(record["tile"]),
        str(record["batch"]),
        f"{record['engine_mpx_s']:.1f}",
        f"{record['end_to_end_mpx_s']:.1f}",
        f"{record['ratio']:.2f}",
        "" if busy is None else f"{busy:.0f}",
        f"{record['plane_mean']:.3f}",
    ]


@main.command("table")
@click.argument("folder", type=click.Path(path_type=Path, exists=True))
def table_command(folder: Path) -> None:
    """Write FOLDER/engines.md from the figures in FOLDER, fastest first."""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in folder.glob("*.json")]
    records = sorted((r for r in records if r.get("way") in WAYS), key=lambda r: -r["end_to_end_mpx_s"])
    if not records:
        click.echo(f"{folder}: no figures yet")
        return
    first = records[0]
    title = (
        f"{first['gpu'] or 'no GPU'}, {first['model']}, a slide of {first['width']}×{first['height']} pixels"
    )
    text = f"{title}\n\n{table(HEAD, [row(record) for record in records])}\n"
    (folder / "engines.md").write_text(text, encoding="utf-8")
    click.echo(text, nl=False)


if __name__ == "__main__":
    main()
