"""OME-Zarr as programs really write it: null, partial and old records, plates, axes in any order."""

import numpy as np
import pytest
import zarr

from cellseg.runtime.errors import ImageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide
from cellseg.runtime.testing.readers import picture

PIXELS = picture((40, 50, 2), "uint16").transpose(2, 0, 1)


def write(path, array, multiscale, **attributes):
    group = zarr.open_group(path, mode="w", zarr_format=2)
    group.create_array("0", data=array, chunks=tuple(min(16, edge) for edge in array.shape))
    group.attrs.update({"multiscales": [{"datasets": [{"path": "0"}], **multiscale}], **attributes})
    return path


def axes(names, unit=None):
    return [{"name": n, "type": "space"} | ({"unit": unit} if unit and n in "zyx" else {}) for n in names]


def whole(path, **options):
    with open_slide(path, **options) as reader:
        return reader.read(Region(0, 0, reader.height, reader.width))


@pytest.mark.parametrize(
    ("omero", "names"),
    [
        (None, ("channel 0", "channel 1")),
        ({}, ("channel 0", "channel 1")),
        ({"channels": None}, ("channel 0", "channel 1")),
        ({"channels": []}, ("channel 0", "channel 1")),
        ({"channels": [{"label": "DAPI"}]}, ("channel 0", "channel 1")),
        ({"channels": [{"label": None}, {"color": "FF0000"}]}, ("channel 0", "channel 1")),
        ({"channels": [None, {"label": "GFP"}]}, ("channel 0", "GFP")),
        ({"channels": [{"label": "DAPI"}, {"label": "GFP"}]}, ("DAPI", "GFP")),
        ("nonsense", ("channel 0", "channel 1")),
    ],
)
def test_names_of_channels(tmp_path, omero, names):
    path = write(tmp_path / "a.zarr", PIXELS, {"axes": axes("cyx")}, omero=omero)
    with open_slide(path) as reader:
        assert reader.channel_names == names
    assert np.array_equal(whole(path), PIXELS.transpose(1, 2, 0))


def scaled(*factors, **more):
    return {"coordinateTransformations": [{"type": "scale", "scale": list(factors)}], **more}


@pytest.mark.parametrize(
    ("transforms", "unit", "wanted"),
    [
        (None, "micrometer", None),
        ([], "micrometer", None),
        ([None], "micrometer", None),
        ([{"type": "scale", "scale": None}], "micrometer", None),
        ([{"type": "scale", "scale": ["a", 1, 1]}], "micrometer", None),
        ([{"type": "scale", "scale": [1, 0.5, 0.5]}], "micrometer", 0.5),
        ([{"type": "scale", "scale": [1, 500, 500]}], "nanometer", 0.5),
        ([{"type": "scale", "scale": [1, 0.5, 0.5]}], None, None),
        ([{"type": "scale", "scale": [1, 352.8, 352.8]}], "micrometer", None),
        ([{"type": "translation", "translation": [0, 1, 1]}], "micrometer", None),
    ],
)
def test_scales(tmp_path, transforms, unit, wanted):
    record = {"axes": axes("cyx", unit), "coordinateTransformations": transforms}
    with open_slide(write(tmp_path / "a.zarr", PIXELS, record)) as reader:
        assert reader.pixel_size == wanted
        given = isinstance(transforms, list) and transforms and (transforms[0] or {}).get("scale")
        if wanted is None and isinstance(given, list) and given and not isinstance(given[0], str):
            assert any("its scale" in note for note in reader.notes)


@pytest.mark.parametrize("version", ["0.1", "0.2"])
def test_versions_without_axes(tmp_path, version):
    path = write(tmp_path / "a.zarr", PIXELS[None, :, None], {"version": version})
    assert np.array_equal(whole(path), PIXELS.transpose(1, 2, 0))
    with pytest.raises(ImageError, match="do not fit its arrays of 3 dimensions"):
        open_slide(write(tmp_path / "b.zarr", PIXELS, {"version": version}))


def test_version_03_names_axes_only(tmp_path):
    path = write(tmp_path / "a.zarr", PIXELS[None, :, None], {"version": "0.3", "axes": list("tczyx")})
    assert np.array_equal(whole(path), PIXELS.transpose(1, 2, 0))


@pytest.mark.parametrize("order", ["yxc", "xyc", "cxy", "ycx"])
def test_axes_in_any_order(tmp_path, order):
    array = PIXELS.transpose(["cyx".index(name) for name in order])
    path = write(tmp_path / "a.zarr", array, {"axes": axes(order)})
    with open_slide(path) as reader:
        assert (reader.height, reader.width, reader.channels) == (40, 50, 2)
        found = reader.read(Region(3, 5, 20, 30))
        assert np.array_equal(found, PIXELS.transpose(1, 2, 0)[3:23, 5:35])


def test_depth_reduced_from_level_to_level(tmp_path):
    """Plane 3 of four is plane 1 of two: the overview must show the depth that was asked for."""
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    full = np.repeat(np.repeat(np.arange(4, dtype=np.uint8)[:, None, None] * 50, 32, 1), 32, 2)
    group.create_array("0", data=full)
    group.create_array("1", data=np.ascontiguousarray(full[::2, ::2, ::2] + 1))
    datasets = [{"path": "0"}, {"path": "1"}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes("zyx"), "datasets": datasets}]
    with open_slide(tmp_path / "a.zarr", z=3) as reader:
        assert (reader.read(Region(0, 0, 32, 32)) == 150).all()
        assert (reader.read(Region(0, 0, 16, 16), 1) == 101).all()


def test_plates_and_wells_name_fields_that_exist(tmp_path):
    plate = zarr.open_group(tmp_path / "p.zarr", mode="w", zarr_format=2)
    plate.attrs["plate"] = {"wells": [{"path": "B/02"}, {"path": "C/03"}]}
    for well in ("C/03",):
        zarr.open_group(tmp_path / "p.zarr" / well, mode="w", zarr_format=2).attrs["well"] = {
            "images": [{"path": "0"}, {"path": "1"}]
        }
        write(tmp_path / "p.zarr" / well / "0", PIXELS, {"axes": axes("cyx")})
    with pytest.raises(
        ImageError, match=r"a plate of 2 wells; .* p\.zarr/C/03/0, or all of them".replace(" p", ".*p")
    ):
        open_slide(tmp_path / "p.zarr")
    with pytest.raises(ImageError, match=r"a well of a plate; .*p\.zarr/C/03/0; it has 0, 1"):
        open_slide(tmp_path / "p.zarr" / "C" / "03")
    assert np.array_equal(whole(tmp_path / "p.zarr" / "C" / "03" / "0"), PIXELS.transpose(1, 2, 0))


@pytest.mark.parametrize("record", [{"multiscales": None}, {"multiscales": [None]}, {"multiscales": "x"}])
def test_records_of_nothing_are_one_line(tmp_path, record):
    zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2).attrs.update(record)
    with pytest.raises(ImageError, match=r"a\.zarr: ") as caught:
        open_slide(tmp_path / "a.zarr")
    assert "Error" not in str(caught.value)
