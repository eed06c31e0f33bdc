"""When three channels are colours: where the file says so, and nowhere else."""

import numpy as np
import pytest
import tifffile
import zarr

from cellseg.runtime.errors import ImageError, UsageError
from cellseg.runtime.intensity.channels import choose
from cellseg.runtime.readers import ArrayReader, open_slide

RGB = ("red", "green", "blue")
STAINS = ["GFP", "DAPI", "RFP"]


def planes(dtype="uint8", count=3):
    return np.random.default_rng(0).integers(0, 255, (count, 40, 50)).astype(dtype)


def names_of(path, **options):
    with open_slide(path, **options) as reader:
        return reader.channel_names


def asks(path, **options):
    with open_slide(path, **options) as reader, pytest.raises(ImageError, match="has 3 channels"):
        choose(reader.channel_names, 3, reader.path)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_named_stains_are_no_colours(tmp_path, dtype):
    for options in ({"photometric": "minisblack"}, {"photometric": "rgb", "planarconfig": "separate"}, {}):
        metadata = {"axes": "CYX", "Channel": {"Name": STAINS}}
        tifffile.imwrite(tmp_path / "a.ome.tif", planes(dtype), metadata=metadata, **options)
        if options.get("photometric") == "rgb":  # one channel of three samples, whose name is one
            continue
        assert names_of(tmp_path / "a.ome.tif") == tuple(STAINS)
        asks(tmp_path / "a.ome.tif")
        assert names_of(tmp_path / "a.ome.tif", channels=["dapi"]) == ("DAPI",)
        # Asked for by name, three stains are still no colours.
        asks(tmp_path / "a.ome.tif", channels=STAINS)


def test_names_of_stains_outweigh_the_tag(tmp_path):
    """Snapshots of three stains are saved as RGB; the record still names them."""
    body = "".join(f'<Channel ID="Channel:0:{n}" Name="{name}"/>' for n, name in enumerate(STAINS))
    record = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06"><Image ID="I:0">'
        '<Pixels ID="P:0" DimensionOrder="XYCZT" Type="uint8" SizeX="50" SizeY="40" SizeC="3" SizeZ="1" '
        'SizeT="1">CHANNELS<TiffData IFD="0" PlaneCount="1"/></Pixels></Image></OME>'
    )
    pixels = np.ascontiguousarray(planes().transpose(1, 2, 0))
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(
        path, pixels, photometric="rgb", metadata=None, description=record.replace("CHANNELS", body)
    )
    assert names_of(path) == tuple(STAINS)
    asks(path)
    # Names that say nothing leave it at what the tag says.
    plain = "".join(f'<Channel ID="Channel:0:{n}" Name="Channel {n}"/>' for n in range(3))
    tifffile.imwrite(
        path, pixels, photometric="rgb", metadata=None, description=record.replace("CHANNELS", plain)
    )
    assert names_of(path) == RGB


def test_samples_of_an_ome_channel_are_colours(tmp_path):
    pixels = np.ascontiguousarray(planes().transpose(1, 2, 0))
    tifffile.imwrite(tmp_path / "a.ome.tif", pixels, photometric="rgb", ome=True)
    assert names_of(tmp_path / "a.ome.tif") == RGB


def test_pages_and_composites_are_no_colours(tmp_path):
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
        for plane in planes():
            file.write(plane, metadata=None)
    tifffile.imwrite(tmp_path / "composite.tif", planes(), imagej=True, metadata={"axes": "CYX"})
    for name in ("pages.tif", "composite.tif"):
        asks(tmp_path / name)
        # The user may say that they are.
        assert names_of(tmp_path / name, channels=[0, 1, 2]) == RGB
        assert names_of(tmp_path / name, channels=[1]) == ("channel 1",)
    tifffile.imwrite(
        tmp_path / "rgb.tif",
        planes(),
        imagej=True,
        metadata={"axes": "CYX", "Labels": ["Red", "Green", "Blue"]},
    )
    with open_slide(tmp_path / "rgb.tif") as reader:
        assert choose(reader.channel_names, 3, reader.path).pick == (0, 1, 2)


@pytest.mark.parametrize("labels", [None, ["0", "1", "2"], STAINS])
def test_zarr_channels_are_no_colours(tmp_path, labels):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w", zarr_format=2)
    group.create_array("0", data=planes())
    axes = [{"name": name} for name in "cyx"]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": axes, "datasets": [{"path": "0"}]}]
    if labels is not None:
        group.attrs["omero"] = {"channels": [{"label": label} for label in labels]}
    asks(tmp_path / "a.zarr")
    if labels != STAINS:
        assert names_of(tmp_path / "a.zarr", channels=["0", "1", "2"]) == RGB


def test_arrays_are_colours_by_custom(tmp_path):
    pixels = planes().transpose(1, 2, 0)
    assert ArrayReader(pixels).channel_names == RGB
    assert ArrayReader(pixels, channel_names=STAINS).channel_names == tuple(STAINS)


def test_a_name_that_stands_for_several_channels(tmp_path):
    """Cyclic staining has nuclei in every round."""
    names = ["DAPI", "CD3", "DAPI", "CD8", "dapi"]
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        planes(count=5),
        photometric="minisblack",
        metadata={"axes": "CYX", "Channel": {"Name": names}},
    )
    with pytest.raises(UsageError, match="2 channels are called 'DAPI'; give the number of one: 0 'DAPI'"):
        open_slide(tmp_path / "a.ome.tif", channels=["DAPI"])
    assert names_of(tmp_path / "a.ome.tif", channels=["2", "CD3", "dapi"]) == ("DAPI", "CD3", "dapi")


def test_a_single_name_needs_no_list(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", planes(), imagej=True, metadata={"axes": "CYX", "Labels": STAINS})
    assert names_of(tmp_path / "a.tif", channels="DAPI") == ("DAPI",)
