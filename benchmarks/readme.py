"""Put the committed figures into the tables of the README and the docs, so that none is typed by hand.

    python benchmarks/readme.py [--check]

Between the lines ``<!-- figures: NAME -->`` and ``<!-- end -->`` stands the table that the function of
that name makes from ``benchmarks/results/NAME.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

ROOT = Path(__file__).parent.parent
PAGES = (
    ROOT / "README.md",
    *(ROOT / "docs" / name for name in ("figures.md", "look.md", "machines.md", "train.md")),
)
RESULTS = ROOT / "benchmarks" / "results"
PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table; the first column is text, the others are numbers."""
    rule = "|".join(["---", *["---:"] * (len(head) - 1)])
    lines = [" | ".join(head), rule, *(" | ".join(row) for row in rows)]
    return "\n".join(f"| {line} |" if line is not rule else f"|{line}|" for line in lines)


def digits(name: str) -> int:
    """Return how many digits behind the point a figure is shown with."""
    return 1 if name.startswith("count") else 3


def quality(figures: dict[str, Any]) -> str:
    """Score the default model on the validation images against Otsu and watershed."""
    names = ("ap50", "ap75", "ap90", "pq", "dice", "count_mae")
    rows = []
    for way, groups in figures.items():
        for group, found in groups.items():
            shown = [f"{found[name]:.{digits(name)}f}" for name in names]
            rows.append([way, group, str(found["images"]), str(found["cells_true"]), *shown])
    return table(["", "modality", "images", "cells", "AP50", "AP75", "AP90", "PQ", "Dice", "count MAE"], rows)


def peers(figures: dict[str, Any]) -> str:
    """Compare with the usual tools, same weights and picture."""
    rows = [
        [name, f"{found['mpx_s']:.2f}", "1×" if name == "cellseg" else f"{1 / found['cellseg_ratio']:.2f}×"]
        for name, found in figures["ways"].items()
    ]
    return table(["", "Mpx/s", "relative to cellseg"], rows)


def kernels(figures: dict[str, Any]) -> str:
    """List each kernel against what one would call instead, on one core."""
    rows = [
        [case["kernel"], f"{case['mpx_s']:.0f}", name, f"{found['mpx_s']:.1f}", f"{found['ratio']:.2f}"]
        for case in figures["cases"]
        for name, found in case["rivals"].items()
    ]
    return table(["kernel", "Mpx/s", "against", "Mpx/s", "ratio"], rows)


def spread(figure: dict[str, float], digits: int = 3) -> str:
    """Write a mean with the standard deviation over seeds, where there are several."""
    apart = f" ± {figure['std']:.{digits}f}" if figure["runs"] > 1 else ""
    return f"{figure['mean']:.{digits}f}{apart}"


def ablation(figures: dict[str, Any]) -> str:
    """Show what each part of training is worth, mean ± standard deviation over seeds."""
    shown = {
        "dice": "Dice",
        "ap50 from mask": "AP50, mask only",
        "ap50 from planes": "AP50, all planes",
        "ap75 from planes": "AP75, all planes",
        "count_mae from planes": "count MAE",
    }
    rows = []
    for variant, found in figures["summary"].items():
        written = (spread(found[name], digits(name)) for name in shown)
        rows.append([variant, str(found["dice"]["runs"]), *written])
    return table(["", "seeds", *shown.values()], rows)


def networks(figures: dict[str, Any]) -> str:
    """Compare networks, each alone and with the branches, mean ± standard deviation over seeds."""
    shown = {
        "dice": "Dice",
        "iou": "IoU",
        "precision": "precision",
        "sensitivity": "sensitivity",
        "ap50 from mask": "AP50, mask only",
        "ap50 from planes": "AP50, all planes",
    }
    rows = [
        [
            variant,
            str(found["dice"]["runs"]),
            f"{found['parameters']['mean'] / 1e6:.2f}",
            f"{found['gflop_mpx']['mean']:.0f}",
            *(spread(found[name]) for name in shown),
        ]
        for variant, found in figures["summary"].items()
    ]
    return table(["", "seeds", "M parameters", "GFLOP/Mpx", *shown.values()], rows)


def finetune(figures: dict[str, Any]) -> str:
    """Show what a few pictures of another kind do for the default model."""
    shown = {"ap50": "AP50", "ap75": "AP75", "dice": "Dice", "count_mae": "count MAE"}
    return taught(figures["rows"], "pictures", shown)


def finetune_tissue(figures: dict[str, Any]) -> str:
    """Show what whole annotated pictures do for other patients."""
    shown = {"ap50": "AP50", "ap75": "AP75", "aji": "AJI", "dice": "Dice"}
    return taught(sorted(figures["rows"], key=lambda row: row["pictures"]), "patients", shown)


def taught(rows: list[dict[str, Any]], counted: str, shown: dict[str, str]) -> str:
    """Show each way to teach the default model, with as many `counted`, and its figures."""
    written = [
        [
            row["way"],
            str(row["pictures"] or ""),
            *(f"{row[name]:.{digits(name)}f}" for name in shown),
        ]
        for row in rows
    ]
    return table(["", counted, *shown.values()], written)


def pictures(figures: dict[str, Any]) -> str:
    """Show what drawn sections and further pictures are worth: the range over seeds, by set of pictures."""
    ways: dict[str, list[dict[str, Any]]] = {}
    for row in figures["rows"]:
        ways.setdefault(row["way"], []).append(row["sets"])
    sets = list(figures["rows"][0]["sets"])
    rows = []
    for way, runs in ways.items():
        ranges = (sorted({f"{run[name]['ap50']:.3f}" for run in runs}) for name in sets)
        rows.append([way, str(len(runs)), *(" … ".join(found) for found in ranges)])
    return table(["AP50", "seeds", *(f"`{name}`" for name in sets)], rows)


def cluster(figures: dict[str, Any]) -> str:
    """Show what handing images out costs, by number of workers."""
    rows = [
        [
            str(run["workers"]),
            f"{run['slides']:,}",
            f"{run['efficiency']:.3f}",
            f"{run['ideal']:.3f}",
            f"{run['bytes_a_slide'] / 1e3:.0f}",
            f"{100 * run['share']:.4f} %",
        ]
        for run in figures["simulated"]["runs"]
    ]
    head = ["workers", "slides", "efficiency", "at no cost", "kB a slide", "of its pixels"]
    return table(head, rows)


def view(figures: dict[str, Any]) -> str:
    """Say how long the viewer computes."""
    seconds = {
        "from the start of the command to the first tile of cells": "first_tile_cpu_s",
        "first look at the whole picture, without a pyramid": "whole_picture_cpu_s",
    }
    tiles = {
        "a tile of cells": "cells_tile",
        "the same in other colours, as a slider asks for": "restyled_tile",
        "a tile of the picture": "picture_tile",
    }
    rows = [[title, f"{1000 * figures[name]:,.0f}"] for title, name in seconds.items()]
    rows += [[title, f"{figures[name]['cpu_ms']:.0f}"] for title, name in tiles.items()]
    return table(["", "processor time, ms"], rows)


def scales(figures: dict[str, Any]) -> str:
    """Show what becomes of cells of other sizes, as they are and with their size found."""
    by_factor: dict[float, dict[str, Any]] = {}
    for row in figures["rows"]:
        by_factor.setdefault(row["factor"], {})[row["diameter"]] = row
    rows = [
        [
            f"{factor:g}×",
            str(ways["auto"]["images"]),
            *(f"{ways[way][name]:.3f}" for name in ("ap50", "ap75") for way in ("none", "auto")),
            str(ways["auto"]["reasons"].get("found", 0)),
        ]
        for factor, ways in sorted(by_factor.items())
    ]
    head = [
        "size",
        "pictures",
        "AP50, none",
        "AP50, auto",
        "AP75, none",
        "AP75, auto",
        "read at another scale",
    ]
    return table(head, rows)


def int8(figures: dict[str, Any]) -> str:
    """Compare the twin in eight bits with the other ways to compute, by set of pictures."""
    ways = ("fp32", "bf16", "int8")
    rows = [
        [
            f"`{name}`",
            str(found["int8"]["images"]),
            *(f"{found[way]['ap50']:.3f} / {found[way]['ap75']:.3f}" if way in found else "" for way in ways),
        ]
        for name, found in figures["sets"].items()
    ]
    return table(["", "pictures", *ways], rows)


def teach(figures: dict[str, Any]) -> str:
    """Show what corrected fields do for other patients, and for the person who corrects them."""
    rows = []
    for row in figures["rows"]:
        changes = row["changes"]
        counts = [f"{changes[name]:.0f}" for name in ("deleted", "merged", "drawn")]
        scores = [f"{row[name]:.3f}" for name in ("ap50", "ap75", "aji")]
        rows.append([row["way"], *scores, *counts, f"{sum(changes.values()):.0f}"])
    return table(["", "AP50", "AP75", "AJI", "to delete", "to merge", "to draw", "changes"], rows)


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "quality": quality,
    "peers": peers,
    "kernels": kernels,
    "ablation": ablation,
    "networks": networks,
    "networks_phase": networks,
    "pictures": pictures,
    "cluster": cluster,
    "finetune": finetune,
    "finetune_tissue": finetune_tissue,
    "view": view,
    "scales": scales,
    "scales_phase": scales,
    "int8": int8,
    "teach": teach,
}


def fill(text: str) -> str:
    """Return a page with every table filled in."""

    def replace(found: re.Match[str]) -> str:
        figures = json.loads((RESULTS / f"{found[2]}.json").read_text(encoding="utf-8"))
        return f"{found[1]}{TABLES[found[2]](figures)}\n{found[3]}"

    return PLACE.sub(replace, text)


@click.command()
@click.option("--check", is_flag=True, help="Only tell whether the pages are up to date.")
def main(check: bool) -> None:
    """Fill the tables of README.md and docs/figures.md from benchmarks/results."""
    for path in PAGES:
        old = path.read_text(encoding="utf-8")
        new = fill(old)
        if check and new != old:
            raise click.ClickException(
                f"{path.relative_to(ROOT)} is out of date; run python benchmarks/readme.py"
            )
        path.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
