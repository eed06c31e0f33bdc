"""Speed of each kernel against what one would call instead, on the same input, in one run.

    python benchmarks/kernels.py [--size 2048] [--json kernels.json] [NAME ...]

Every call runs on one core; rates are pixels per second of processor time, so that other programs
count as little as possible, and the best of several rounds in turn.

*memory copy* next to a tile kernel is a copy that moves as many bytes, read and written together, as the
kernel does: 16-bit pixels become bytes by reading two and writing one, as much as copying one and a
half. So the ratio is that of memory bandwidths. Rivals that are not installed are named and left out.
"""

import os

for _variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_variable, "1")

import json  # noqa: E402
import platform  # noqa: E402
from collections.abc import Callable  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

import click  # noqa: E402
import cv2  # noqa: E402
from instance_kernels import instance_cases  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402
from rivals import Case, best_seconds  # noqa: E402
from tile_kernels import tile_cases  # noqa: E402

#: Groups of cases by name; each is made from the edge of the scene in pixels.
GROUPS: dict[str, Callable[[int], list[Case]]] = {"instances": instance_cases, "tiles": tile_cases}


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--size", default=2048, show_default=True, help="Edge of the scene in pixels.")
@click.option("--rounds", default=5, show_default=True, help="Rounds; the best of them counts.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here.")
def main(names: tuple[str, ...], size: int, rounds: int, json_path: Path | None) -> None:
    """Time the kernels named (groups: instances, tiles), or all."""
    unknown = set(names) - set(GROUPS)
    if unknown:
        raise click.UsageError(f"no group {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    cv2.setNumThreads(1)
    missing: set[str] = set()
    table = Table("kernel", "Mpx/s", "against", "Mpx/s", "ratio")
    for column in table.columns[1::2]:
        column.justify = "right"
    records = []
    for group in names or GROUPS:
        for made in GROUPS[group](size):
            case = made.installed(missing)
            seconds = best_seconds([case.ours, *case.rivals.values()], rounds)
            rates = [size * size / 1e6 / s for s in seconds]
            record: dict[str, Any] = {"kernel": case.name, "mpx_s": round(rates[0], 1), "rivals": {}}
            for rival, rate in zip(case.rivals, rates[1:], strict=True):
                ratio = rates[0] / rate
                record["rivals"] |= {rival: {"mpx_s": round(rate, 2), "ratio": round(ratio, 2)}}
                table.add_row(case.name, f"{rates[0]:.1f}", rival, f"{rate:.1f}", f"{ratio:.2f}")
            if not case.rivals:
                table.add_row(case.name, f"{rates[0]:.1f}", "", "", "")
            records.append(record)
    Console().print(table)
    for name in sorted(missing):
        click.echo(f"not compared: {name}")
    if json_path is not None:
        result = {"size": size, "machine": platform.processor() or platform.machine(), "cases": records}
        result["missing"] = sorted(missing)
        json_path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
