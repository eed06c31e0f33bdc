"""Zarr results against the specification, by the model that the community keeps of it."""

import cv2
import numpy as np
import pytest
import zarr

from cellseg.runtime import segment
from cellseg.runtime.testing.local_engine import LocalEngine, local_spec

pytest.importorskip("ome_zarr_models")


@pytest.mark.parametrize("pixel_size", [None, 0.25])
def test_labels_and_planes_follow_ome_zarr(tmp_path, pixel_size):
    from ome_zarr_models.v05.image import Image
    from ome_zarr_models.v05.image_label import ImageLabel

    picture = np.zeros((700, 1300), np.uint8)
    cv2.circle(picture, (600, 300), 30, 230, -1)
    spec = local_spec(1).model_copy(update={"pixel_size": 0.5})
    with LocalEngine(spec, 1) as engine:
        segment(picture, engine, output=tmp_path / "a", pixel_size=pixel_size, probabilities=True)
    for name, model in (("labels", ImageLabel), ("planes", Image)):
        found = model.from_zarr(zarr.open_group(tmp_path / "a" / f"{name}.ome.zarr", mode="r"))
        assert found.ome_attributes.version == "0.5"
        assert len(found.ome_attributes.multiscales[0].datasets) == (2 if name == "labels" else found.levels)
