"""``report.html``: one page, complete in itself, that a person would rather look at than JSON.

What may be wrong comes first, then what was found, then how. Pictures are embedded, charts are drawn as
SVG, nothing is loaded from elsewhere and no script runs. Each part of the page is one function.
"""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..common.spelling import option
from ..intensity.classes import CLASSES
from .base import write_whole
from .charts import chart
from .closeups import Closeup
from .contents import RECORD
from .outputs import titles
from .overview import CLASSLESS
from .page import PAGE, STYLE
from .summary import Summary

Record = Mapping[str, Any]
#: Regions of interest that are listed; detections that were exported with the areas may be thousands.
MOST_REGIONS = 200


#: Parts of the record that the page lists.
DETAILS = (
    "engine", "model", "settings", "sizing", "stains", "positive", "focus", "counts", "seconds", "versions",
)  # fmt: skip


def write_report(
    path: Path,
    record: Record,
    summary: Summary,
    *,
    overview: bytes = b"",
    density: bytes = b"",
    closeups: Sequence[Closeup] = (),
) -> int:
    """Write the page of one image; return its size in bytes.

    Parameters
    ----------
    path
        The file to make; files of results next to it are listed.
    record
        What goes into ``run.json``.
    summary
        Took all strips of the image.
    overview, density
        The pictures to embed, as JPEG and as PNG; left out where empty.
    closeups
        Parts of the picture at full resolution.

    Raises
    ------
    OutputError
        It cannot be written.
    """
    data = page(path.parent, record, summary, overview=overview, density=density, closeups=closeups).encode()
    write_whole(path, data)
    return len(data)


def page(
    folder: Path,
    record: Record,
    summary: Summary,
    *,
    overview: bytes = b"",
    density: bytes = b"",
    closeups: Sequence[Closeup] = (),
) -> str:
    """Return the page as HTML."""
    name = Path(str(record["image"]["path"])).name
    parts = (
        notes(record),
        facts(record, summary),
        section(
            "The picture",
            embed(overview, "jpeg", "The picture with the outlines of the cells") + legend(record),
            "picture",
        ),
        section("Positive cells", positive(record)),
        section("Regions of interest", regions(record)),
        section("Close up", "".join(_closeup(each, record) for each in closeups), "closeups"),
        section("The cells", charts(record, summary), "charts"),
        section("Density", embed(density, "png", "Map of cell density"), "density"),
        section("Files", f"<table>{''.join(files(folder))}</table>"),
        details(record),
    )
    return PAGE.format(
        style=STYLE,
        title=html.escape(name),
        subtitle=html.escape(_subtitle(record["image"])),
        body="\n".join(filter(None, parts)),
    )


def _subtitle(image: Record) -> str:
    scale = image.get("pixel_size_um")
    return (
        f"{image['width']:,} × {image['height']:,} pixels"
        + (f" of {scale:.4g} µm" if scale else ", scale unknown")
        + f" · {', '.join(image['channels'])} · {image['dtype']}"
    )


def section(title: str, content: str, kind: str = "plain") -> str:
    """Return a part of the page under a heading; nothing without a content."""
    return f'<section><h2>{title}</h2><div class="{kind}">{content}</div></section>' if content else ""


def notes(record: Record) -> str:
    """Return what the user should know, doubts first."""
    doubts = record.get("doubts", ())
    rows = [
        f"<li class=doubt><b>Doubt:</b> {html.escape(str(note))}"
        if note in doubts
        else f"<li>{html.escape(str(note))}"
        for note in sorted(record.get("notes", ()), key=lambda note: note not in doubts)
    ]
    return f'<ul class="notes" aria-label="Doubts and notes">{"".join(rows)}</ul>' if rows else ""


def facts(record: Record, summary: Summary) -> str:
    """Return a few numbers that say most."""
    image, count = record["image"], record["counts"]["cells"]
    scale = image.get("pixel_size_um")
    focus = record.get("focus", {})
    part = focus.get("looked_at_part", 1.0)
    pixels = image["height"] * image["width"]
    per = "mm²" if scale else "megapixel"
    unit, factor = ("µm", scale) if scale else ("px", 1.0)

    def density(of: float) -> str:
        return f"{count / max(of * (scale or 1.0) ** 2 / 1e6, 1e-12):,.0f}"

    rows = [("cells", f"{count:,}")]
    if part < 1:
        where = looked_at(focus)
        rows.append((f"cells per {per} {where}", density(pixels * part)))
        rows.append((f"cells per {per} of the picture", density(pixels)))
        rows.append((f"{where} is cells", f"{100 * summary.area / max(pixels * part, 1):.1f} %"))
        rows.append((f"of the picture is {where.removeprefix('of ')}", f"{100 * part:.1f} %"))
    else:
        rows.append((f"cells per {per}", density(pixels)))
        rows.append(("of the area is cells", f"{100 * summary.area / max(pixels, 1):.1f} %"))
    told = record.get("positive") or {}
    if told.get("positive_share") is not None:
        rows.append((f"positive for {told['marker']}", f"{100 * told['positive_share']:.1f} %"))
    if told.get("h_score") is not None:
        rows.append(("H-score", f"{told['h_score']:.0f}"))
    median = f"{summary.diameter.quantile(0.5) * factor:.1f} {unit}" if count else "–"
    rows.append(("median diameter", median))
    drawn = "".join(
        f"<div class=fact><b>{html.escape(value)}</b><span>{html.escape(label)}</span></div>"
        for label, value in rows
    )
    return f'<section class="facts" aria-label="Main figures">{drawn}</section>'


def legend(record: Record) -> str:
    """Return the classes with their colours and counts; nothing where cells are not told positive."""
    told = record.get("positive")
    if not told:
        return ""
    colours = CLASSES[len(told["thresholds"])]
    each = [(name, colours[name], count) for name, count in told["counts"].items()]
    if told["unclassified"]:
        each.append(("no class", CLASSLESS, told["unclassified"]))
    keys = "".join(
        f'<span class=key><i style="background:rgb{tuple(colour)}"></i>{name} {count:,}</span>'
        for name, colour, count in each
    )
    return f'<p class=legend aria-label="Colours of the classes">{keys}</p>'


def positive(record: Record) -> str:
    """Return a table of the cells by class; nothing where they are not told positive."""
    told = record.get("positive")
    if not told:
        return ""
    total = max(sum(told["counts"].values()), 1)
    rows = "".join(
        f"<tr><th scope=row>{name}<td class=number>{count:,}<td class=number>{100 * count / total:.1f} %"
        for name, count in told["counts"].items()
    )
    where = {"nucleus": "nucleus", "ring": "ring about the nucleus", "cell": "whole cell"}[told["part"]]
    limits = ", ".join(f"{limit:g}" for limit in told["thresholds"])
    said = f"By the mean of {html.escape(told['marker'])} in the {where}, from {limits} on."
    if told["unclassified"]:
        said += f" {told['unclassified']:,} cells without such a mean have no class."
    head = "<th scope=col>class<th scope=col class=number>cells<th scope=col class=number>share"
    return f"<table><tr>{head}{rows}</table><p class=hint>{said}</p>"


def looked_at(focus: Record) -> str:
    """Return what the part of the picture is in which cells were looked for."""
    tissue, regions = focus.get("tissue_part") is not None, bool(focus.get("regions"))
    if tissue and regions:
        return "of tissue in the regions"
    return "of tissue" if tissue else "of the regions"


def _closeup(each: Closeup, record: Record) -> str:
    place, scale = each.place, record["image"].get("pixel_size_um")
    region = place.region
    wide = f"{region.width * scale:,.0f} µm" if scale else f"{region.width:,} px"
    where = f"x {region.x:,}, y {region.y:,}"
    said = f"{place.cells:,} cells, mean score {place.score:.2f}"
    picture = embed(each.jpeg, "jpeg", f"A {place.kind} place at {where}, with the outlines of {said}")
    return (
        f"<figure>{picture}<figcaption>{place.kind}</figcaption>"
        f"<p class=hint>{said} · {wide} across, at {where}</p></figure>"
    )


def regions(record: Record) -> str:
    """Return a table of the regions of interest; nothing where there are none."""
    found = record.get("focus", {}).get("by_name", ())
    if not found:
        return ""
    scale = record["image"].get("pixel_size_um")
    per, area = ("mm²", (scale / 1000) ** 2) if scale else ("megapixel", 1e-6)
    rows = []
    for each in found[:MOST_REGIONS]:
        density = each["cells_per_mm2" if scale else "cells_per_megapixel"]
        pieces = f" <span class=hint>{each['polygons']:,} areas</span>" if each["polygons"] > 1 else ""
        rows.append(
            f"<tr><th scope=row>{html.escape(each['name'])}{pieces}"
            f"<td class=number>{each['cells']:,}<td class=number>{each['pixels'] * area:,.4g}"
            f"<td class=number>{'–' if density is None else f'{density:,.0f}'}{_positive_in(each)}"
        )
    titles = ["region", "cells", per, f"cells per {per}"]
    told = found[0].get("positive")
    if told:
        titles += ["positive", *(["H-score"] if len(told["counts"]) > 2 else [])]
    head = "".join(
        f"<th scope=col{' class=number' if number else ''}>{title}" for number, title in enumerate(titles)
    )
    left = len(found) - len(rows)
    more = f"<p class=hint>{left:,} more are in run.json.</p>" if left else ""
    return f"<table><tr>{head}{''.join(rows)}</table>{more}"


def _positive_in(region: Record) -> str:
    """Return the places of a region's positive share and H-score in its row."""
    told = region.get("positive")
    if not told:
        return ""
    share, score = told["positive_share"], told["h_score"]
    places = [None if share is None else f"{100 * share:.1f} %"]
    if len(told["counts"]) > 2:
        places.append(None if score is None else f"{score:.0f}")
    return "".join(f"<td class=number>{place or '–'}" for place in places)


def charts(record: Record, summary: Summary) -> str:
    """Return histograms of the cells."""
    scale = record["image"].get("pixel_size_um")
    unit, factor = ("µm", scale) if scale else ("px", 1.0)
    rule = record.get("settings", {}).get("split", {}).get("score")
    limit = rule.get("minimum") if isinstance(rule, Mapping) else None
    return "".join(
        (
            chart("Diameter", summary.diameter, unit, factor),
            chart(
                "Score",
                summary.score,
                limit=limit,
                limited=""
                if limit is None
                else f"Cells below {limit:.3g} were dropped ({option('min_score')}).",
            ),
            chart("Eccentricity", summary.eccentricity),
            chart("Solidity", summary.solidity),
        )
    )


def files(folder: Path) -> Iterator[str]:
    """Yield a row for each file of the results."""
    for item, text in titles().items():
        if item == RECORD or (folder / item).exists():  # the record comes last
            yield f"<tr><th scope=row>{item}<td>{text}"


def details(record: Record) -> str:
    """Return what only some want to know, folded: time, engine, model, settings and versions."""
    total = record["seconds"]["total"]
    return (
        "<details><summary>Time, engine, model, settings and versions</summary>"
        f"<h3>Where the time went: {total:,.1f} s in all</h3>"
        f'<table class="stages">{stages(record)}</table>'
        '<p class="hint">Stages run side by side; the fullest bar sets the pace.</p>'
        f'<h3>All of it</h3><table class="details">{"".join(_settings(record))}</table></details>'
    )


def embed(data: bytes, kind: str, text: str) -> str:
    """Return an ``img`` that holds a picture, or nothing where there is none."""
    if not data:
        return ""
    source = base64.b64encode(data).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/{kind};base64,{source}">'


def stages(record: Record) -> str:
    """Return one bar for each stage: how much of the run it was busy."""
    run = max(float(record["seconds"].get("run", 0)), 1e-9)
    rows = []
    for name, times in record.get("stages", {}).items():
        part = min(float(times["busy"]) / run, 1)
        rows.append(
            f"<tr><th scope=row>{html.escape(name)}"
            f"<td class=bar><span style='width:{100 * part:.1f}%'></span>"
            f"<td class=number>{times['busy']:.1f} s"
        )
    return "".join(rows)


def _settings(record: Record) -> Iterable[str]:
    """Yield the rows of model, engine, settings, counts and versions, nested names joined by dots."""
    for part in (
        "engine",
        "model",
        "settings",
        "sizing",
        "stains",
        "positive",
        "focus",
        "counts",
        "seconds",
        "versions",
    ):
        for name, value in _flat(record.get(part) or {}):
            if name == "by_name":  # has a table of its own
                continue
            yield f"<tr><th scope=row>{part}<td>{html.escape(name)}<td>{html.escape(value)}"


def _flat(values: Record, prefix: str = "") -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        elif isinstance(value, float):
            yield prefix + name, f"{value:.5g}"
        elif isinstance(value, list | tuple):
            yield prefix + name, ", ".join(map(str, value))
        else:
            yield prefix + name, str(value)
