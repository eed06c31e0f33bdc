"""``summary.csv`` and ``index.html``: a row an image, with what was found, and links to all of it.

Where regions of interest were given, the table has a column ``region``, and behind the row of an image one
of each of its regions.
"""

from __future__ import annotations

import csv
import html
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..common.addresses import Address
from ..common.bounded import check_file
from ..common.files import replacing
from ..common.names import readable
from ..results.record import ClassesRecord
from .jobs import Outcome, median_area

#: Names of the files, in the folder that holds the folders of results.
TABLE, PAGE = "summary.csv", "index.html"
COLUMNS = (
    "image", "folder", "state", "cells", "cells_per_mm2", "cells_per_megapixel", "area_mm2",
    "median_area_um2", "median_area_px", "seconds", "mpx_s", "worker", "model", "engine", "notes",
)  # fmt: skip
#: Further columns where cells are told positive.
POSITIVE = ("positive_share", "h_score")
#: A further column where there are regions of interest, and the state of their rows.
REGION = "region"

_FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src 'self' file:; \
style-src 'unsafe-inline'">
<title>{title} · cellseg</title>
<style>
:root {{ --ink: #1c2330; --soft: #5d6779; --line: #e3e7ee; --paper: #fff; --ground: #f5f7fa; --warm: #b4451f;
  color-scheme: light dark; }}
@media (prefers-color-scheme: dark) {{ :root {{ --ink: #e8ecf3; --soft: #9aa5b8; --line: #2c3442;
  --paper: #171c25; --ground: #10141b; --warm: #f09a62; }} }}
body {{ margin: 0 auto; padding: 2rem 1.25rem 4rem; max-width: 1180px; background: var(--ground);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }}
h1 {{ margin: 0; font-size: 1.6rem; }}
p {{ color: var(--soft); margin: .2rem 0 1.2rem; }}
table {{ width: 100%; border-collapse: collapse; background: var(--paper); border: 1px solid var(--line); }}
th, td {{ padding: .5rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }}
th.n, td.n {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }}
td.name {{ overflow-wrap: anywhere; }}
img {{ width: 110px; height: 80px; object-fit: cover; border-radius: 5px; display: block; }}
small {{ display: block; color: var(--soft); overflow-wrap: anywhere; }}
small.doubt {{ color: var(--warm); }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{subtitle}</p>
<table>
<thead><tr><th></th><th>Image</th><th class="n">Cells</th><th class="n">per mm²</th>\
<th class="n">Median area</th><th class="n">Seconds</th></tr></thead>
<tbody>
{rows}
</tbody>
</table>
</body>
</html>
"""


def write_summary(outcomes: Sequence[Outcome], output: Path | Address) -> list[Path | Address]:
    """Write both files next to the folders of results; earlier ones are replaced.

    Returns
    -------
    list of Path or Address
        Those that were written: a file of this name that is not ours is kept.

    Raises
    ------
    OutputError
        They cannot be written.
    """
    ordered = sorted(outcomes, key=lambda outcome: (outcome.job.image, str(outcome.job.folder)))
    rows = [row_of(outcome, output) for outcome in ordered]
    text = io.StringIO(newline="")
    parts = [regions_of(row, outcome) for row, outcome in zip(rows, ordered, strict=True)]
    told = any(POSITIVE[0] in row for row in rows)
    columns = (*COLUMNS, *(POSITIVE if told else ()), *((REGION,) if any(parts) else ()))
    table = csv.DictWriter(text, columns, lineterminator="\n", restval="")
    table.writeheader()
    for row, below in zip(rows, parts, strict=True):
        table.writerows({name: _safe(value) for name, value in each.items()} for each in (row, *below))
    written: list[Path | Address] = []
    for name, content in ((TABLE, text.getvalue()), (PAGE, page(rows))):
        path = output / name
        if not _is_free(path):
            continue
        if isinstance(path, Address):
            path.write(content.encode())
        else:
            with replacing(path) as temporary:
                temporary.write_text(content, encoding="utf-8")
        written.append(path)
    return written


def _is_free(path: Path | Address) -> bool:
    """Whether there is no file, or one that :func:`write_summary` has written, by how it begins."""
    if isinstance(path, Address):
        return not path.is_file() or _is_ours(path.read()[:1000])
    if not os.path.lexists(path):
        return True
    try:
        check_file(path)
        with path.open("rb") as file:
            head = file.read(1000)
    except (OSError, ValueError):
        return False
    return _is_ours(head)


def _is_ours(head: bytes) -> bool:
    # A failure of power may have left nothing of it.
    return (
        not head.strip(b"\0")
        or head.startswith(",".join(COLUMNS).encode())
        or b" \xc2\xb7 cellseg</title>" in head
    )


def row_of(outcome: Outcome, output: Path | Address) -> dict[str, Any]:
    """Return the values of a row by :data:`COLUMNS`; empty text where there is none."""
    row: dict[str, Any] = dict.fromkeys(COLUMNS, "")
    if isinstance(output, Address):
        folder = str(outcome.job.folder).removeprefix(f"{output}/")
    else:
        folder = os.path.relpath(str(outcome.job.folder), output)
    row |= {"image": readable(outcome.job.image), "folder": folder, "worker": outcome.worker}
    if outcome.result is None:
        return row | {
            "state": "failed",
            "folder": "",
            "notes": readable(" ".join(str(outcome.error).split())),
        }
    record = outcome.result.record
    pixels, size, cells = (
        record.image.height * record.image.width,
        record.image.pixel_size_um,
        record.counts.cells,
    )
    stored = outcome.result.address is not None
    median = outcome.median_area if stored else median_area(outcome.result)
    row |= {
        "state": "done earlier" if outcome.earlier else "done",
        "cells": cells,
        "cells_per_megapixel": f"{cells / pixels * 1e6:.6g}",
        "median_area_px": "" if median is None else median,
        "seconds": f"{record.seconds.total:.3f}",
        "mpx_s": f"{record.mpx_s:.4g}",
        "model": record.model.name,
        "engine": record.engine.description,
        "notes": "; ".join(record.notes),
    }
    row |= _positive(record.positive)
    if size is not None:
        area = pixels * (size / 1000) ** 2
        row |= {"area_mm2": f"{area:.6g}", "cells_per_mm2": f"{cells / area:.6g}"}
        if median is not None:
            row["median_area_um2"] = f"{median * size**2:.5g}"
    return row


def regions_of(row: dict[str, Any], outcome: Outcome) -> list[dict[str, Any]]:
    """Return a row for each region of interest of an image."""
    if outcome.result is None:
        return []
    record = outcome.result.record
    scale = record.image.pixel_size_um
    rows = []
    for region in record.focus.by_name:
        made = dict.fromkeys(COLUMNS, "") | {"image": row["image"], "folder": row["folder"], "state": REGION}
        made |= {REGION: region.name, "cells": region.cells, "model": row["model"], "engine": row["engine"]}
        if scale is not None:
            made["area_mm2"] = f"{region.pixels * (scale / 1000) ** 2:.6g}"
        for name in ("cells_per_megapixel", "cells_per_mm2"):
            density = getattr(region, name)
            made[name] = "" if density is None else f"{density:.6g}"
        rows.append(made | _positive(region.positive))
    return rows


def _positive(told: ClassesRecord | None) -> dict[str, str]:
    """Return positive share and H-score, where cells were told positive."""
    if told is None:
        return {}
    values = (told.positive_share, told.h_score)
    return {
        name: "" if value is None else f"{value:.6g}" for name, value in zip(POSITIVE, values, strict=True)
    }


def page(rows: Sequence[dict[str, Any]]) -> str:
    """Return the page about all images; its links and pictures lie next to it."""
    failed = sum(row["state"] == "failed" for row in rows)
    cells = sum(int(row["cells"]) for row in rows if row["cells"] != "")
    subtitle = f"{cells:,} cells" + (f"; {failed} failed" if failed else "")
    title = f"{len(rows)} image{'s' * (len(rows) != 1)}"
    return _FRAME.format(title=title, subtitle=subtitle, rows="\n".join(map(_line, rows)))


def _line(row: dict[str, Any]) -> str:
    name = html.escape(Path(row["image"]).name or row["image"])
    folder = quote(row["folder"].replace(os.sep, "/"))
    notes = f'<small class="doubt">{html.escape(row["notes"])}</small>' if row["notes"] else ""
    if not folder:
        return f'<tr><td></td><td class="name">{name}{notes}</td><td class="n" colspan="4">failed</td></tr>'
    picture = f'<a href="{folder}/report.html"><img src="{folder}/overview.png" alt="" loading="lazy"></a>'
    worker = f"<small>worker {html.escape(row['worker'])}</small>" if row["worker"] else ""
    area = f"{row['median_area_um2']} µm²" if row["median_area_um2"] else f"{row['median_area_px']} px"
    per_mm2, per_mpx = row["cells_per_mm2"], row["cells_per_megapixel"]
    density = f"{float(per_mm2):,.4g}" if per_mm2 else f"{float(per_mpx):,.4g} per Mpx"
    return (
        f"<tr><td>{picture}</td>"
        f'<td class="name"><a href="{folder}/report.html">{name}</a>{worker}{notes}</td>'
        f'<td class="n">{row["cells"]:,}</td><td class="n">{density}</td><td class="n">{area}</td>'
        f'<td class="n">{row["seconds"]}</td></tr>'
    )


def _safe(value: Any) -> Any:
    """Keep a spreadsheet from taking a name for a formula."""
    risky = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if risky and not _is_number(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
