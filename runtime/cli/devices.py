"""``cellseg-infer --devices``: what can run models on this machine, and how fast."""

from __future__ import annotations

from pathlib import Path

import click

from . import common

#: Seconds for which ``--devices --measure`` looks at an engine.
MEASURED = 3.0


def print_devices(model: Path, measure: bool) -> None:
    """Print which engines can run which models on which devices here, what ``auto`` takes, and how fast."""
    from rich.table import Table
    from rich.text import Text

    from ..backends import list_devices

    lines = list_devices()
    table = Table(box=None, pad_edge=False)
    for title in ("device", "hardware", "backend", "models", "state"):
        table.add_column(title, overflow="fold")
    for line in lines:
        values = (line.device, line.hardware, line.engine, line.suffix, line.missing or "ready")
        table.add_row(*map(Text, values))  # an extra's name in brackets would be taken for markup
    console = common.console()
    console.print(table)
    for suffix in dict.fromkeys(line.suffix for line in lines):
        taken = next((line for line in lines if line.suffix == suffix and line.missing is None), None)
        if taken is not None:
            text = f"runs on {taken.engine} ({taken.device})"
        else:
            text = "cannot run; its ONNX file does in its place" if suffix == ".plan" else "cannot run"
        click.echo(f"auto: a {suffix} file {text}")
    if measure:
        from ..backends import Options, open_backend
        from ..backends.rates import rate

        for line in lines:
            if line.missing is None and line.suffix == model.suffix:
                options = Options(fallback="none")
                with open_backend(model, line.device, engine=line.engine, options=options) as backend:
                    backend.prepare(backend.spec.tile, backend.spec.batch)
                    found = rate(backend, seconds=MEASURED)
                    useful = found * (1 - 2 * backend.spec.halo / backend.tile) ** 2
                    click.echo(
                        f"{model.stem} on {backend.description}: {found:.1f} Mpx/s computed, "
                        f"{useful:.1f} useful (tiles of {backend.tile} × {backend.batch})"
                    )
