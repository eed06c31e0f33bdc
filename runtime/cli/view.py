"""``cellseg-view``: look at finished results in the browser."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import UsageError
from . import common

PROGRAM = "cellseg-view"


@click.command(
    PROGRAM,
    cls=common.Command,
    examples=[
        (f"{PROGRAM} cellseg_out/slide", "Look at one result."),
        (f"{PROGRAM} cellseg_out", "All results in a folder, side by side."),
        (f"{PROGRAM} cellseg_out/slide --image /new/place/slide.svs", "The image has moved since."),
    ],
)
@click.argument("results", metavar="RESULT...", nargs=-1, type=click.Path(path_type=Path))
@click.option("--image", metavar="FILE", help="Where the image of a single RESULT is now, if it has moved.")
@click.option(
    "--port", type=click.IntRange(0, 65535), default=0, help="Port to listen on; by default a free one."
)
@click.option("--no-browser", is_flag=True, help="Print the address only; open no browser.")
@common.version_option()
def main(results: tuple[Path, ...], image: str | None, port: int, no_browser: bool) -> None:
    """Look at finished results in the browser.

    A RESULT is a folder that cellseg-infer wrote, or a folder of such. The slide can be zoomed to its
    pixels, with the cells' outlines on it, coloured by what was measured; several results lie side by
    side or over one another. Only this machine can reach the page, and nothing is written.
    """
    if not results:
        raise UsageError(f"no result was given; see {PROGRAM} --help")
    folders = expand(results)
    if image is not None and len(folders) != 1:
        raise UsageError(f"--image says where the image of one result is; {len(folders)} were given")
    try:
        from ..view.serve import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("starlette", "uvicorn"):
            raise
        raise UsageError("the viewer is not installed; pip install 'cellseg[view]'") from None
    try:
        serve(folders, image, port, announce=lambda address: _announce(address, not no_browser))
    except common.Terminated:
        raise
    except KeyboardInterrupt:  # how it ends
        click.echo(err=True)
    common.say_next("cellseg-train", "import", "IMAGE", "CORRECTIONS.geojson", "-o", "datasets/NAME")


def expand(results: tuple[Path, ...]) -> list[Path]:
    """Return folders of results: those given, and those inside of folders given."""
    folders: list[Path] = []
    for path in results:
        inside = (
            [path] if (path / "run.json").is_file() else sorted(p.parent for p in path.glob("*/run.json"))
        )
        if not inside:
            wanted = "a folder that cellseg-infer wrote" if path.is_dir() else "an existing folder"
            raise UsageError(f"{path}: no result is there; wanted {wanted}, with a run.json in it")
        folders += inside
    return list(dict.fromkeys(folders))


def _announce(address: str, browse: bool) -> None:
    click.echo(f"{address}\nOnly this machine can open it. Ctrl-C ends it.")
    if browse:
        import webbrowser

        webbrowser.open(address)
