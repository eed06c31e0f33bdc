"""How a run went, and the record that is made of it."""

from __future__ import annotations

import contextlib
import datetime
import functools
import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata
from types import MappingProxyType

from ..common.names import readable
from ..instances import Stats
from ..intensity.classes import h_score, positive_share
from ..options import SegmentOptions
from ..streaming.classes import ClassCounter
from ..streaming.progress import Progress
from ..streaming.regions import RegionCounter
from ..streaming.setup import Setup
from .identity import Source, described
from .record import (
    ClassesRecord,
    CountsRecord,
    EngineRecord,
    FocusRecord,
    ImageRecord,
    LookRecord,
    ModelRecord,
    PositiveRecord,
    RegionRecord,
    RunRecord,
    SecondsRecord,
    SettingsRecord,
    SizingRecord,
    StageRecord,
    StainsRecord,
)

#: Packages whose versions stand in the record, where they are installed.
PACKAGES = (
    "cellseg", "numpy", "openvino", "onnxruntime", "onnxruntime-gpu", "tensorrt", "tensorrt-rtx",
    "tifffile", "imagecodecs", "zarr", "pyarrow", "openslide-python",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Report:
    """How a run went."""

    setup: Setup
    #: The state of the image before it was read.
    source: Source
    #: What the user asked for.
    options: SegmentOptions
    #: The last state of the stages.
    progress: Progress
    #: Counts of the instance stage.
    stats: Stats
    #: Seconds to open image and model, to run, and to finish the files.
    seconds: Mapping[str, float]
    #: What the user should know.
    notes: tuple[str, ...]
    #: Why the cells may not be right.
    doubts: tuple[str, ...] = ()
    #: Cells by region of interest.
    regions: RegionCounter | None = None
    #: Cells of each class, where they were told positive.
    classes: ClassCounter | None = None

    def record(self) -> RunRecord:
        """Return all of it, as in ``run.json``."""
        progress = self.progress
        return RunRecord(
            created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            image=self._image(),
            model=self._model(),
            engine=self._engine(),
            options=described(self.options),
            settings=self._settings(),
            sizing=self._sizing(),
            stains=self._stains(),
            expand_um=self.setup.measures.expand,
            positive=self._positive(),
            focus=self._focus(),
            counts=self._counts(),
            seconds=SecondsRecord(**self.seconds, total=sum(self.seconds.values())),
            stages={
                name: StageRecord(busy=busy, wait=wait) for name, (busy, wait) in progress.stages.items()
            },
            resumed_pixels=progress.resumed,
            mpx_s=progress.mpx_s,
            bottleneck=progress.bottleneck,
            notes=tuple(map(readable, self.doubts + self.notes)),
            doubts=self.doubts,
            versions=dict(versions()),
        )

    def _image(self) -> ImageRecord:
        slide = self.setup.slide
        return ImageRecord(
            path=readable(slide.location),
            height=slide.height,
            width=slide.width,
            channels=tuple(slide.channel_names),
            dtype=slide.dtype.name,
            pixel_size_um=self.setup.pixel_size,
            bad_blocks=tuple(map(readable, self.setup.bad_blocks)),
            source=self.source,
        )

    def _model(self) -> ModelRecord:
        spec = self.setup.backend.spec
        return ModelRecord(
            name=spec.name,
            architecture=spec.architecture,
            heads=spec.head_names,
            precision=spec.precision,
            weights_sha256=spec.weights_sha256,
        )

    def _engine(self) -> EngineRecord:
        backend = self.setup.backend
        return EngineRecord(
            name=backend.name,
            device=backend.device,
            precision=backend.precision,
            description=backend.description,
        )

    def _settings(self) -> SettingsRecord:
        setup, grid = self.setup, self.setup.grid
        return SettingsRecord(
            tile=grid.tile,
            halo=grid.halo,
            batch=setup.backend.batch,
            useful_fraction=grid.useful_fraction,
            blend=setup.blend,
            scaled_to=(grid.height, grid.width) if setup.unscaled else None,
            black=float(setup.mapping.low),
            white=float(setup.mapping.high),
            input_channels=tuple(int(channel) for channel in setup.choice.pick),
            workers=setup.workers,
            split=setup.split,
        )

    def _sizing(self) -> SizingRecord:
        scaling, known = self.setup.scaling, self.setup.backend.spec.diameter
        if scaling is None:
            return SizingRecord(reason="alone", factor=1.0, model=known)
        survey = scaling.survey
        found = survey.estimate if survey else None
        return SizingRecord(
            reason=scaling.reason,
            factor=scaling.factor,
            diameter=scaling.diameter,
            model=known,
            votes=found.votes if found else None,
            agreement=found.agreement if found else None,
            scales=found.scales if found else (),
            looks=tuple(
                LookRecord(
                    scale=each.scale,
                    fields=each.fields,
                    cells=each.cells,
                    votes=each.votes,
                    diameter=each.diameter,
                    density=each.density,
                )
                for each in (survey.evidence if survey else ())
            ),
            pixels=survey.pixels if survey else 0,
        )

    def _stains(self) -> StainsRecord | None:
        stains = self.setup.measures.stains
        if stains is None:
            return None
        return StainsRecord(
            kind=stains.kind,
            names=stains.names,
            vectors=stains.vectors,
            background=stains.background,
            estimated=stains.estimated,
        )

    def _positive(self) -> PositiveRecord | None:
        if self.classes is None:
            return None
        classes, counts = self.classes.classes, self.classes.cells.tolist()
        return PositiveRecord(
            marker=classes.marker,
            part=classes.rule.part,
            thresholds=classes.rule.thresholds,
            counts=dict(zip(classes.names, counts, strict=True)),
            unclassified=self.stats.cells - sum(counts),
            positive_share=positive_share(counts),
            h_score=h_score(counts),
        )

    def _positive_in(self, number: int) -> ClassesRecord | None:
        """Return the cells of a region of interest by class."""
        classes = self.setup.measures.classes
        if classes is None or self.regions is None:
            return None
        counts = self.regions.by_class[number].tolist()
        return ClassesRecord(
            counts=dict(zip(classes.names, counts, strict=True)),
            positive_share=positive_share(counts),
            h_score=h_score(counts),
        )

    def _focus(self) -> FocusRecord:
        setup, covered, regions = self.setup, self.setup.covered, self.setup.regions
        tiles = len(setup.grid)
        return FocusRecord(
            roi=None if regions is None or regions.source is None else readable(regions.source),
            regions=0 if regions is None else len(regions.polygons),
            by_name=self._by_name(),
            tissue_part=None if setup.tissue is None else setup.tissue.part,
            looked_at_part=covered.part,
            tiles_skipped=tiles - covered.count,
            skipped_part=1 - covered.count / tiles,
        )

    def _by_name(self) -> tuple[RegionRecord, ...]:
        named, counted = self.setup.named, self.regions
        if named is None or counted is None:
            return ()
        area = None if self.setup.pixel_size is None else (self.setup.pixel_size / 1000) ** 2
        found = zip(named.names, named.parts, named.pixels, counted.cells.tolist(), strict=True)
        return tuple(
            RegionRecord(
                name=name,
                polygons=len(part.polygons),
                pixels=pixels,
                cells=cells,
                cells_per_megapixel=cells / pixels * 1e6 if pixels else None,
                cells_per_mm2=cells / (pixels * area) if pixels and area else None,
                positive=self._positive_in(number),
            )
            for number, (name, part, pixels, cells) in enumerate(found)
        )

    def _counts(self) -> CountsRecord:
        stats = self.stats
        return CountsRecord(
            cells=stats.cells,
            components=stats.components,
            dropped=stats.dropped,
            holes_filled=stats.holes,
            cut_components=stats.giant,
            tiles=len(self.setup.grid),
        )


@functools.cache
def versions() -> Mapping[str, str]:
    """Return the versions of Python, the system and every installed package that had a part."""
    found = {"python": platform.python_version(), "system": platform.platform()}
    for name in PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return MappingProxyType(found)
