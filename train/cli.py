"""``cellseg-train``: parse, check, train."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("config", type=click.Path(path_type=Path))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Override a key of CONFIG.")
def main(config: Path, overrides: tuple[str, ...]) -> None:
    """Train the network that CONFIG describes."""
    import logging

    from .config import load

    checked = load(config, overrides)
    logging.basicConfig(level=checked.log_level, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    from .loop import train

    print(train(checked, config.stem, config))
