"""What the user should know about a run, one line each."""

from __future__ import annotations

from collections.abc import Iterator

from ..common.spelling import option
from ..instances import Stats
from ..options import SegmentOptions
from ..streaming.progress import Progress
from ..streaming.regions import RegionCounter
from ..streaming.setup import Setup


def notes_of(
    setup: Setup,
    last: Progress,
    stats: Stats,
    options: SegmentOptions,
    regions: RegionCounter | None = None,
) -> tuple[str, ...]:
    """Return what the user should know about this run, one line each."""
    slide = setup.slide
    notes = [*slide.notes]
    if setup.backend.note:
        notes.append(setup.backend.note)
    if setup.pixel_size is None:
        notes.append(
            "the image does not say how large a pixel is: sizes are in pixels; give it with "
            f"{option('pixel_size')}"
        )
    notes += _about_scale(setup, options)
    if setup.measures.note:
        notes.append(setup.measures.note)
    if last.resumed:
        notes.append(f"{last.resumed / last.total:.0%} of the image had been done by a run that was stopped")
    if options.resume and setup.blend != "none":
        notes.append("bands of averaged tiles are not kept: interrupted, this image starts over")
    covered = setup.covered
    if options.tissue == "auto" and setup.tissue is None:
        notes.append("glass is looked for on large bright-field slides only: none was skipped here")
    if covered.focus is not None:
        notes.append(
            f"{covered.part:.1%} of the image was looked at, {len(setup.grid) - covered.count} of "
            f"{len(setup.grid)} tiles were skipped"
        )
    if setup.regions is not None and setup.regions.n_empty:
        total = setup.regions.n_empty + len(setup.regions.polygons)
        notes.append(
            f"{setup.regions.n_empty} of the {total} regions of interest are empty and were left out"
        )
    if regions is not None and regions.overlap:
        notes.append(
            "regions of interest overlap: a cell counts in each that holds its centre, and its roi is the "
            "smallest of them"
        )
    if regions is not None and regions.outside:
        notes.append(
            f"{regions.outside:,} cells at the edge of a region of interest have their centre in none"
        )
    if stats.unmeasured:
        notes.append(
            f"{stats.unmeasured:,} cells hold pixels that are infinite or no number: a mean intensity "
            "of theirs is missing"
        )
    if bad := setup.bad_blocks:
        notes.append(f"{len(bad)} damaged tiles were read as zero, the first: {bad[0]}")
    return tuple(notes)


def _about_scale(setup: Setup, options: SegmentOptions) -> Iterator[str]:
    """Yield why the image was read at another scale than its own, or could not be judged."""
    scaling, spec = setup.scaling, setup.backend.spec
    if scaling is None:
        return
    in_pixels = "results are in pixels of the image"
    if scaling.reason == "physical":
        decides = "; its micrometres decide, the cells' diameter was not looked for"
        told = decides if options.diameter == "auto" else ""
        if setup.unscaled is not None:
            yield (
                f"the image has {setup.pixel_size:.4g} µm a pixel and was brought to the model's "
                f"{spec.pixel_size:.4g}{told}; {in_pixels}"
            )
        elif told:
            yield f"the image has the model's {spec.pixel_size:.4g} µm a pixel{told}"
    if spec.diameter is None or scaling.diameter is None or scaling.factor == 1:
        return
    size = f"cells of {scaling.diameter:.3g} pixels"
    known = spec.diameter.median
    at = f"read at {scaling.factor:.3g} times its size, at which they have the model's {known:.3g}"
    if scaling.reason == "given":
        yield f"for {size} the image was {at}; {in_pixels}"
    elif scaling.reason == "found":
        found = scaling.survey and scaling.survey.estimate
        agree = (
            f" ({found.agreement:.0%} of what was seen at {len(found.scales)} scales agree)" if found else ""
        )
        yield (
            f"{size} were found{agree}, and the image was {at}; {in_pixels}; where that is wrong give "
            f"{option('diameter')}, or {option('diameter', 'none')} to read it as it is"
        )
