"""What became of an image: the same class for results in memory and in a folder."""

from __future__ import annotations

import functools
import tempfile
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..common.addresses import Address, is_address
from ..instances import Cells
from .record import RunRecord

if TYPE_CHECKING:
    import os

    from .layers import Layer


@dataclass(frozen=True, eq=False)
class Result:
    """Labels, cells and record of one image.

    What lies in a folder is read when it is first asked for: :attr:`labels`, :attr:`table` and
    :attr:`cells` whole, and then kept; :attr:`levels` and :attr:`planes` piece by piece as they are indexed.

    Examples
    --------
    >>> import numpy as np, tempfile
    >>> from cellseg.runtime import Result, segment
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     made = segment(np.zeros((64, 64), np.uint8), output=f"{folder}/out")
    ...     again = Result.open(f"{folder}/out")
    ...     again.count, again.labels.shape, again.record == made.record
    (0, (64, 64), True)
    """

    #: All of ``run.json``.
    record: RunRecord = field(repr=False)
    #: Folder of results on the disk; of results in a store a copy, for as long as this lives.
    folder: Path | None = None
    _labels: NDArray[np.int32] | None = field(default=None, repr=False)
    _cells: Cells | None = field(default=None, repr=False)
    _whole: NDArray[np.int32] | None = field(default=None, repr=False)
    #: Where the results are in a store, such as ``s3://bucket/results/a``.
    address: str | None = None

    @classmethod
    def open(cls, folder: str | os.PathLike[str]) -> Result:
        """Read a finished folder of results back.

        Parameters
        ----------
        folder
            As written by ``cellseg-infer`` or ``segment(…, output=…)``: the one that holds ``run.json``. Or
            the address of one, whose files are fetched when they are first asked for.

        Raises
        ------
        OutputError
            It is no such folder, damaged, or of a newer release.
        """
        from .stored import read_record

        if is_address(folder):
            from .store import open_stored

            return open_stored(Address(str(folder)))
        path = Path(folder)
        return cls(read_record(path), path)

    @property
    def image(self) -> Path:
        """The image, or ``array``."""
        return Path(self.record.image.path)

    @property
    def height(self) -> int:
        """Rows of the image."""
        return self.record.image.height

    @property
    def width(self) -> int:
        """Columns of the image."""
        return self.record.image.width

    @property
    def count(self) -> int:
        """Number of cells."""
        return self.record.counts.cells

    @property
    def notes(self) -> tuple[str, ...]:
        """What the user should know: choices made for them, damaged tiles."""
        return self.record.notes

    @functools.cached_property
    def _at(self) -> Path | None:
        """The folder, or a copy of what is in a store."""
        if self.folder is not None or self.address is None:
            return self.folder
        from .store import fetch_results

        copy = tempfile.TemporaryDirectory(prefix="cellseg-", ignore_cleanup_errors=True)
        weakref.finalize(self, copy.cleanup)
        fetch_results(Address(self.address), Path(copy.name))
        return Path(copy.name)

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the copy, which is of use only here."""
        kept = {name: value for name, value in self.__dict__.items() if name != "_at"}
        return kept if self.address is None else kept | {"folder": None}

    @functools.cached_property
    def labels(self) -> NDArray[np.int32]:
        """int32 (height, width): 0 is background, then one number a cell."""
        if self._labels is not None:
            return self._labels
        return np.asarray(self.levels[0][:], np.int32)

    @functools.cached_property
    def levels(self) -> list[Any]:
        """The label image and its reduced copies, largest first: arrays that are read as they are indexed.

        They are Zarr arrays for ``labels.ome.zarr`` and ``labels.ome.tif``; a PNG, and labels in memory,
        are one NumPy array.
        """
        if self._at is None:
            return [self.labels]
        from .stored import open_levels

        return open_levels(self._at)

    @functools.cached_property
    def cell_labels(self) -> NDArray[np.int32] | None:
        """As :attr:`labels`, of whole cells, same numbers; ``None`` unless nuclei were grown into cells."""
        levels = self.cell_levels
        return None if levels is None else np.asarray(levels[0][:], np.int32)

    @functools.cached_property
    def cell_levels(self) -> list[Any] | None:
        """As :attr:`levels`, of whole cells; ``None`` unless nuclei were grown into cells."""
        if self.record.expand_um is None:
            return None
        if self._at is None:
            return [self._whole]
        from .stored import open_levels

        return open_levels(self._at, "cells")

    @functools.cached_property
    def table(self) -> dict[str, NDArray[Any]]:
        """One array of length n by name, as the columns of ``cells.parquet``.

        Unlike :attr:`Cells.columns <cellseg.runtime.instances.Cells.columns>` it also has sizes in
        micrometres, where the size of a pixel is known, and intensities by the names of their channels.
        """
        if self._at is None:
            from .stored import columns_of

            assert self._cells is not None
            return columns_of(self.record).values(self._cells)
        from .stored import read_table

        return read_table(self._at)

    @functools.cached_property
    def cells(self) -> Cells:
        """Measures and outlines of the cells, in the order of their numbers."""
        if self._cells is not None:
            return self._cells
        from .stored import columns_of, read_cells

        assert self._at is not None
        return read_cells(self._at, self.table, columns_of(self.record))

    @functools.cached_property
    def planes(self) -> list[Any] | None:
        """The network's planes, largest level first: uint8 (K, rows, columns) as Zarr arrays.

        Their order is that of ``record.model.heads``, their scale the one at which the model saw the image.
        ``None`` unless ``probabilities`` was asked for, with a folder.
        """
        if self._at is None:
            return None
        from .stored import open_planes

        return open_planes(self._at)

    def to_napari(self, *, outlines: bool = True) -> list[Layer]:
        """Return layers for napari: labels, centres of cells with their table, outlines.

        Parameters
        ----------
        outlines
            Whether to make the layer of outlines; napari draws tens of thousands of them slowly.

        Returns
        -------
        list of (data, keyword arguments, kind)
            LayerData tuples with kinds ``labels``, ``points`` and ``shapes``, as a reader plugin returns
            them. The labels of a folder are its levels, read as they are looked at. napari itself is not
            needed.

        Examples
        --------
        >>> import numpy as np
        >>> from cellseg.runtime import segment
        >>> layers = segment(np.zeros((64, 64), np.uint8)).to_napari()
        >>> [kind for _, _, kind in layers]
        ['labels', 'points', 'shapes']

        With napari: ``for layer in layers: viewer.add_layer(napari.layers.Layer.create(*layer))``.
        """
        from .layers import layers

        return layers(self, outlines=outlines)

    def to_pandas(self) -> Any:
        """Return :attr:`table` as a pandas ``DataFrame``, one row a cell (extra ``[spatial]``).

        Raises
        ------
        UsageError
            pandas is not installed.
        """
        from .tables import to_pandas

        return to_pandas(self)

    def to_geopandas(self, unit: Literal["px", "um"] = "px") -> Any:
        """Return the table with the cells' polygons as a ``GeoDataFrame`` (extra ``[spatial]``).

        Parameters
        ----------
        unit
            Of the polygons: pixels, or micrometres. Both begin at the image's corner, y down.

        Returns
        -------
        geopandas.GeoDataFrame
            Without a coordinate reference system. Polygons run along the edges of pixels and have holes
            where cells do; one whose parts touch at a corner alone is a ``MultiPolygon``.

        Raises
        ------
        UsageError
            geopandas is not installed, or the size of a pixel is not known.
        """
        from .tables import to_geopandas

        return to_geopandas(self, unit)

    def to_anndata(self) -> Any:
        """Return measurements as an ``AnnData`` matrix of cells and columns (extra ``[spatial]``).

        Returns
        -------
        anndata.AnnData
            ``X``: what was measured, float64, with ``var["unit"]``; ``obs``: number, place and box of the
            cells, named by their numbers; ``obsm["spatial"]``: x and y of their centroids in pixels from the
            image's corner (the centre of the first pixel is at 0.5), ``obsm["spatial_um"]`` in micrometres
            where the scale is known; ``uns["cellseg"]``: image and model.

        Raises
        ------
        UsageError
            anndata is not installed.
        """
        from .tables import to_anndata

        return to_anndata(self)

    def to_spatialdata(self, *, image: str | os.PathLike[str] | bool = False, outlines: bool = True) -> Any:
        """Return everything as one ``SpatialData`` object (extra ``[spatial]``).

        Parameters
        ----------
        image
            Put the picture into it, too: true for where it was, or where it is now.
        outlines
            Whether to make the shapes; they are held in memory.

        Returns
        -------
        spatialdata.SpatialData
            Labels ``labels`` and image ``image``, read from their files as they are looked at;
            shapes ``outlines``, by the numbers of the cells; table ``cells``, as :meth:`to_anndata` has it,
            which annotates ``labels`` (``region_key`` ``region``, ``instance_key`` ``label``). In pixels in
            the coordinate system ``global``, and in micrometres in ``um`` where the scale is known.

        Raises
        ------
        UsageError
            spatialdata is not installed.
        DataError, ImageError
            The picture is not there, is another one, or cannot be read.
        """
        from .spatial import to_spatialdata

        return to_spatialdata(self, image=image, outlines=outlines)
