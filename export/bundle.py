"""Other people's packages around an exported model: those that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cellseg.runtime.backends.trt import plans

from .assemble import Exported
from .bioimage_package import bioimageio
from .report import Say, line
from .triton_repository import triton


def add_bundles(
    exported: Exported,
    plan: Path | None,
    say: Say,
    repository: Path | None,
    package: bool,
    authors: Sequence[str],
    license_id: str,
) -> None:
    """Write the packages that were asked for around an exported model, and tell where they are."""
    if repository is not None:
        served = plan if plan is not None and plans.load_record(plan).flavour == "tensorrt" else exported.path
        say(line("triton", f"{triton(served, repository)} (serves {served.name})"))
    if package:
        path = exported.path.with_suffix(".bioimageio.zip")
        bioimageio(exported.path, path, exported.images[0], authors=authors, license_id=license_id)
        say(line("bioimageio", f"{path} ({path.stat().st_size / 1e6:.2f} MB)"))
