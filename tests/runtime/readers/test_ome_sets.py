"""OME-TIFF sets: the file that is named is the one that is read, whatever its record speaks of."""

import numpy as np
import pytest
import tifffile

from cellseg.runtime.errors import ImageError, UsageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide

HEAD = (
    '<?xml version="1.0" encoding="UTF-8"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
    'UUID="urn:uuid:{uuid}">{body}</OME>'
)


def plane(seed, height=40, width=50):
    return np.random.default_rng(seed).integers(0, 255, (height, width), np.uint8)


def tiff_data(file, uuid, ifd=0, **first):
    at = "".join(f' First{axis}="{n}"' for axis, n in first.items())
    return (
        f'<TiffData IFD="{ifd}" PlaneCount="1"{at}><UUID FileName="{file}">urn:uuid:{uuid}</UUID></TiffData>'
    )


def image(index, data, *, sizes=None, size=(40, 50), mpp=0.5, names=("DAPI",)):
    sizes = {"C": len(names), "Z": 1, "T": 1} | (sizes or {})
    channels = "".join(f'<Channel ID="Channel:{index}:{n}" Name="{name}"/>' for n, name in enumerate(names))
    extent = "".join(f' Size{axis}="{n}"' for axis, n in sizes.items())
    return (
        f'<Image ID="Image:{index}" Name="pos{index}"><Pixels ID="Pixels:{index}" DimensionOrder="XYZCT" '
        f'Type="uint8" SizeX="{size[1]}" SizeY="{size[0]}"{extent} PhysicalSizeX="{mpp}" '
        f'PhysicalSizeY="{mpp}">{channels}{data}</Pixels></Image>'
    )


def write(path, planes, uuid, body):
    """Write planes as pages, with a record as the first page's description."""
    with tifffile.TiffWriter(path) as file:
        for number, pixels in enumerate(planes):
            description = HEAD.format(uuid=uuid, body=body) if number == 0 and body is not None else None
            file.write(pixels, description=description, metadata=None)
    return path


def whole(path, **options):
    with open_slide(path, **options) as reader:
        return reader.read(Region(0, 0, reader.height, reader.width))


def positions(folder, count=3, *, uuids=None, mpp=(0.5, 0.25, 0.1)):
    """Write one file a position, each with the record of all."""
    uuids = uuids or [str(n) for n in range(count)]
    files = [f"set_Pos{n}.ome.tif" for n in range(count)]
    body = "".join(
        image(n, tiff_data(files[n], n), mpp=mpp[n], names=(f"stain {n}",), size=(40 - n, 50))
        for n in range(count)
    )
    for n in range(count):
        write(folder / files[n], [plane(n, 40 - n)], uuids[n], body)
    return [folder / name for name in files]


def test_each_position_gives_its_own_image_scale_and_names(tmp_path):
    for number, path in enumerate(positions(tmp_path)):
        with open_slide(path) as reader:
            assert np.array_equal(
                reader.read(Region(0, 0, reader.height, 50))[:, :, 0], plane(number, 40 - number)
            )
            assert reader.pixel_size == (0.5, 0.25, 0.1)[number]
            assert reader.channel_names == (f"stain {number}",)
            assert reader.notes == ()


def test_another_position_can_be_asked_for(tmp_path):
    first, *_ = positions(tmp_path)
    assert np.array_equal(whole(first, series=2)[:, :, 0], plane(2, 38))
    with pytest.raises(UsageError, match="no series 3; its record has 0, 1, 2"):
        open_slide(first, series=3)


def test_other_positions_need_not_be_there(tmp_path):
    first, second, third = positions(tmp_path)
    first.unlink()
    third.write_bytes(b"")
    assert np.array_equal(whole(second)[:, :, 0], plane(1, 39))
    with pytest.raises(ImageError, match=r"set_Pos0\.ome\.tif of its set is missing"):
        open_slide(second, series=0)
    with pytest.raises(ImageError, match=r"set_Pos2\.ome\.tif of its set cannot be read"):
        open_slide(second, series=2)


@pytest.mark.parametrize("uuids", [["0", "0", "0"], ["9", "9", "9"]], ids=["the first one's", "none of them"])
def test_files_that_share_one_identity(tmp_path, uuids):
    """Scripts copy a whole record from file to file."""
    for number, path in enumerate(positions(tmp_path, uuids=uuids)):
        assert np.array_equal(whole(path)[:, :, 0], plane(number, 40 - number))


def test_a_renamed_file_is_known_by_its_identity(tmp_path):
    _, second, third = positions(tmp_path)
    second.rename(tmp_path / "other.ome.tif")
    assert np.array_equal(whole(tmp_path / "other.ome.tif")[:, :, 0], plane(1, 39))
    # Even where it takes the name of another one.
    third.replace(tmp_path / "set_Pos0.ome.tif")
    with open_slide(tmp_path / "set_Pos0.ome.tif") as reader:
        assert reader.height == 38
        assert reader.pixel_size == 0.1


def test_a_file_that_its_record_does_not_know(tmp_path):
    body = image(0, tiff_data("a.ome.tif", 1), mpp=9) + image(1, tiff_data("b.ome.tif", 2), mpp=8)
    path = write(tmp_path / "c.ome.tif", [plane(3)], 7, body)
    with open_slide(path) as reader:
        assert np.array_equal(reader.read(Region(0, 0, 40, 50))[:, :, 0], plane(3))
        assert reader.pixel_size is None
        assert any("speaks of other files" in note for note in reader.notes)


def test_names_differ_in_case_or_carry_folders_of_another_computer(tmp_path):
    for name in ("POS1.ome.TIF", r"D:\data\pos1.ome.tif", "/mnt/scope/pos1.ome.tif"):
        body = image(0, tiff_data("pos0.ome.tif", 0)) + image(1, tiff_data(name, 1), mpp=0.25)
        with open_slide(write(tmp_path / "pos1.ome.tif", [plane(1)], 8, body)) as reader:
            assert reader.pixel_size == 0.25


def test_same_names_in_different_folders(tmp_path):
    files = ("A1/img.ome.tif", "A2/img.ome.tif")
    body = "".join(image(n, tiff_data(name, n), mpp=n + 1) for n, name in enumerate(files))
    (tmp_path / "all.companion.ome").write_text(HEAD.format(uuid="r", body=body), encoding="utf-8")
    pointer = '<BinaryOnly MetadataFile="all.companion.ome" UUID="urn:uuid:r"/>'
    # Members in folders below are read through a file next to the record.
    (tmp_path / "A2").mkdir()
    write(tmp_path / "A2" / "img.ome.tif", [plane(2)], 1, None)
    with open_slide(write(tmp_path / "top.ome.tif", [plane(5)], 9, pointer), series=None) as reader:
        assert np.array_equal(reader.read(Region(0, 0, 40, 50))[:, :, 0], plane(5))


@pytest.mark.parametrize("axis", ["T", "Z"])
def test_a_time_or_depth_a_file(tmp_path, axis):
    """One image over several files: a file stands for its own plane, the others can be asked for."""
    files = [f"x_{axis}{n}.ome.tif" for n in range(3)]
    data = "".join(tiff_data(name, n, **{f"{axis}": n}) for n, name in enumerate(files))
    body = image(0, data, sizes={axis: 3})
    for n, name in enumerate(files):
        write(tmp_path / name, [plane(n)], n, body)
    for n, name in enumerate(files):
        with open_slide(tmp_path / name) as reader:
            assert np.array_equal(reader.read(Region(0, 0, 40, 50))[:, :, 0], plane(n))
            assert any(f"{axis.lower()} {n} of 3" in note for note in reader.notes)
    assert np.array_equal(whole(tmp_path / files[0], **{axis.lower(): 2})[:, :, 0], plane(2))
    (tmp_path / files[2]).unlink()
    assert np.array_equal(whole(tmp_path / files[1])[:, :, 0], plane(1))
    with pytest.raises(ImageError, match=f"x_{axis}2.ome.tif of its set is missing"):
        open_slide(tmp_path / files[0], **{axis.lower(): 2})


def test_a_channel_a_file_and_one_is_missing(tmp_path):
    names = ("DAPI", "GFP", "RFP")
    files = [f"x_{name}.ome.tif" for name in names]
    body = image(0, "".join(tiff_data(f, n, C=n) for n, f in enumerate(files)), names=names)
    for n, name in enumerate(files):
        write(tmp_path / name, [plane(n)], n, body)
    assert np.array_equal(whole(tmp_path / files[1]), np.stack([plane(n) for n in range(3)], axis=2))
    (tmp_path / files[0]).unlink()
    with open_slide(tmp_path / files[1]) as reader:
        assert reader.channel_names == ("GFP", "RFP")
        assert np.array_equal(reader.read(Region(0, 0, 40, 50)), np.stack([plane(n) for n in (1, 2)], axis=2))
        assert reader.notes == ("x_DAPI.ome.tif of its set is missing: read without 'DAPI'",)
    assert np.array_equal(whole(tmp_path / files[1], channels=["RFP"])[:, :, 0], plane(2))
    with pytest.raises(ImageError, match=r"x_DAPI\.ome\.tif of its set is missing"):
        open_slide(tmp_path / files[1], channels=["DAPI"])


@pytest.mark.parametrize("master", ["set.companion.ome", "set_Pos0.ome.tif"])
def test_the_record_lies_in_another_file(tmp_path, master):
    """OME companions, and Micro-Manager 2, whose later files point to the first."""
    files = [f"set_Pos{n}.ome.tif" for n in range(3)]
    body = "".join(image(n, tiff_data(name, n), mpp=n + 1) for n, name in enumerate(files))
    pointer = f'<BinaryOnly MetadataFile="{master}" UUID="urn:uuid:master"/>'
    for n, name in enumerate(files):
        write(tmp_path / name, [plane(n)], n, body if name == master else pointer)
    if master.endswith(".ome"):
        (tmp_path / master).write_text(HEAD.format(uuid="master", body=body), encoding="utf-8")
    for n, name in enumerate(files):
        with open_slide(tmp_path / name) as reader:
            assert np.array_equal(reader.read(Region(0, 0, 40, 50))[:, :, 0], plane(n))
            assert reader.pixel_size == n + 1
    (tmp_path / master).unlink()
    with open_slide(tmp_path / files[1]) as reader:
        assert np.array_equal(reader.read(Region(0, 0, 40, 50))[:, :, 0], plane(1))
        assert any(f"its record '{master}' is missing" in note for note in reader.notes)


def test_a_file_with_several_images_of_a_larger_set(tmp_path):
    data = [tiff_data("a.ome.tif", 0), tiff_data("b.ome.tif", 1), tiff_data("b.ome.tif", 1, ifd=1)]
    body = "".join(image(n, each, mpp=n + 1) for n, each in enumerate(data))
    path = write(tmp_path / "b.ome.tif", [plane(1), plane(2)], 1, body)
    with open_slide(path) as reader:
        assert np.array_equal(reader.read(Region(0, 0, 40, 50))[:, :, 0], plane(1))
        assert reader.notes == ("series 1 of 3 (choose another with series)",)
    with open_slide(path, series=2) as reader:
        assert np.array_equal(reader.read(Region(0, 0, 40, 50))[:, :, 0], plane(2))
        assert reader.pixel_size == 3


def test_levels_of_a_pyramid_in_a_set(tmp_path):
    """Reductions in SubIFDs, of each channel's own file."""
    names = ("DAPI", "GFP")
    body = image(0, "".join(tiff_data(f"{n}.ome.tif", n, C=n) for n in range(2)), names=names, size=(96, 128))
    for n in range(2):
        full = plane(n, 96, 128)
        with tifffile.TiffWriter(tmp_path / f"{n}.ome.tif") as file:
            file.write(
                full, subifds=1, tile=(32, 32), metadata=None, description=HEAD.format(uuid=n, body=body)
            )
            file.write(full[::2, ::2], subfiletype=1, tile=(32, 32), metadata=None)
    with open_slide(tmp_path / "1.ome.tif") as reader:
        assert [(level.height, level.width) for level in reader.levels] == [(96, 128), (48, 64)]
        small = reader.read(Region(0, 0, 48, 64), 1)
        assert np.array_equal(small, np.stack([plane(n, 96, 128)[::2, ::2] for n in range(2)], axis=2))


def test_a_record_that_counts_more_planes_than_there_are(tmp_path):
    """Acquisition was stopped: what is there is read, and what is not is named."""
    data = "".join(tiff_data("a.ome.tif", 0, ifd=n, T=n) for n in range(3))
    path = write(tmp_path / "a.ome.tif", [plane(0), plane(1)], 0, image(0, data, sizes={"T": 3}))
    assert np.array_equal(whole(path)[:, :, 0], plane(0))
    assert np.array_equal(whole(path, t=1)[:, :, 0], plane(1))
    with pytest.raises(ImageError, match=r"page 2 of a\.ome\.tif"):
        open_slide(path, t=2)


def test_a_record_of_absurd_sizes_is_not_unrolled(tmp_path):
    data = '<TiffData IFD="0" PlaneCount="2000000000"/>'
    path = write(tmp_path / "a.ome.tif", [plane(0)], 0, image(0, data, sizes={"T": 2_000_000_000}))
    assert np.array_equal(whole(path)[:, :, 0], plane(0))


def test_a_record_of_absurdly_many_channels(tmp_path):
    path = write(tmp_path / "a.ome.tif", [plane(0)], 0, image(0, "<TiffData/>", sizes={"C": 2_000_000_000}))
    with pytest.raises(ImageError, match="claims 2,000,000,000 channels"):
        open_slide(path)


def test_channels_are_called_by_name_or_dye(tmp_path):
    data = "".join(tiff_data("a.ome.tif", 0, ifd=n, C=n) for n in range(3))
    body = image(0, data, names=("DAPI", "", "x")).replace('Name="x"', 'Fluor="Cy5"')
    with open_slide(write(tmp_path / "a.ome.tif", [plane(n) for n in range(3)], 0, body)) as reader:
        assert reader.channel_names == ("DAPI", "channel 1", "Cy5")
