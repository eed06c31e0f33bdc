"""``cellseg-export``: parse and call."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Any

import click

from cellseg.runtime.cli import common
from cellseg.runtime.errors import UsageError

FILE = click.Path(path_type=Path)


@click.command(
    "cellseg-export",
    cls=common.Command,
    epilog="`cellseg-export inspect FILE` prints the specification of an exported model.",
)
@click.argument("checkpoint", type=FILE, required=False)
@click.option("-o", "--output", type=FILE, help="ONNX file to write; beside the checkpoint by default.")
@click.option(
    "--heads",
    metavar="NAMES",
    help="Heads to keep, for example mask,boundary; mask alone by default.",
)
@click.option("--fp32", "precision", flag_value="fp32", default="fp32", help="Single precision (default).")
@click.option("--fp16", "precision", flag_value="fp16", help="Half precision where measurement allows it.")
@click.option("--name", help="Name that the model goes by; the training run's by default.")
@click.option("--parity", type=FILE, metavar="DIR", help="Pictures to compare with PyTorch on.")
@click.option(
    "--halo", default="exact", help="exact, near (bytes off by 1 at most) or pixels.", show_default=True
)
@click.option(
    "--tile", metavar="PIXELS|auto", help="Preferred tile edge; auto measures it and the batch size."
)
@click.option("--batch", type=click.IntRange(1), default=1, help="Preferred batch size.", show_default=True)
@click.option("--pixel-size", type=float, help="Micrometres a pixel of the training data.")
@click.option("--split", type=FILE, metavar="JSON", help="Settings of the splitter to ship with the model.")
@click.option("--opset", type=int, default=20, help="ONNX opset.", show_default=True)
@click.option("--force", is_flag=True, help="Write even where the comparison with PyTorch fails.")
@common.version_option()
def export_command(
    checkpoint: Path | None,
    heads: str | None,
    halo: str,
    tile: str | None,
    split: Path | None,
    **options: Any,
) -> None:
    """Turn CHECKPOINT into one ONNX file that every engine runs, proven equal to the trained network.

    Without CHECKPOINT the newest best.pt under work_dirs is taken.
    """
    kept = None if heads is None else tuple(name.strip() for name in heads.split(",") if name.strip())
    wanted_halo = _size("--halo", halo, ("exact", "near"))
    wanted_tile = None if tile is None else _size("--tile", tile, ("auto",))
    from .assemble import Request, export

    request = Request(
        checkpoint=checkpoint,
        heads=kept,
        halo=wanted_halo,  # type: ignore[arg-type]  # a word is one of those allowed
        tile=wanted_tile,  # type: ignore[arg-type]
        split=_split_settings(split),
        command=shlex.join(["cellseg-export", *sys.argv[1:]]),
        **options,
    )
    export(request, click.echo)


@click.command("cellseg-export inspect", cls=common.Command)
@click.argument("file", type=FILE)
def inspect_command(file: Path) -> None:
    """Print the specification of FILE, an exported ONNX model."""
    from cellseg.runtime.backends import load_spec

    click.echo(load_spec(file).to_json())


def main() -> None:
    """Run the export, or ``inspect`` where that is the first word."""
    if sys.argv[1:2] == ["inspect"]:
        inspect_command(args=sys.argv[2:])
    else:
        export_command()


def _size(option: str, text: str, words: tuple[str, ...]) -> int | str:
    if text in words:
        return text
    if not text.isdecimal() or (option == "--tile" and int(text) == 0):
        raise UsageError(f"{option} {text}: wanted {', '.join(words)} or a number of pixels")
    return int(text)


def _split_settings(path: Path | None) -> Any:
    from pydantic import ValidationError

    from cellseg.runtime.spec import SplitSettings

    if path is None:
        return SplitSettings()
    try:
        return SplitSettings.model_validate_json(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--split {path}: cannot be read ({error})") from None
    except ValidationError as error:
        first: Any = error.errors()[0]
        raise UsageError(f"--split {path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from None
