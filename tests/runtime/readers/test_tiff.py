"""The TIFF family: every layout through the conformance suite, then the dialects one by one."""

import copy
import sys

import numpy as np
import pytest
import tifffile

from cellseg.runtime.errors import ImageError, UsageError
from cellseg.runtime.geometry.tiling import Region
from cellseg.runtime.readers import open_slide
from cellseg.runtime.testing.readers import ReaderSuite, picture


def write(path, pixels, **options):
    """Write (h, w, c) as grey or RGB."""
    grey = pixels.shape[2] == 1
    photometric = "minisblack" if grey else "rgb"
    array = np.ascontiguousarray(pixels[:, :, 0]) if grey else pixels
    # tifffile adds to the options that it is given.
    tifffile.imwrite(path, array, photometric=photometric, **copy.deepcopy(options))
    return path


def whole(reader):
    return reader.read(Region(0, 0, reader.height, reader.width))


LAYOUTS = {
    "tiles": {"tile": (32, 48)},
    "tiles-deflate": {"tile": (16, 16), "compression": "zlib", "predictor": True},
    "tiles-zstd": {"tile": (64, 32), "compression": "zstd"},
    "tiles-lzw-big-endian": {"tile": (32, 32), "compression": "lzw", "byteorder": ">"},
    "one-tile": {"tile": (256, 256), "compression": "zlib"},
    "strips-lzw": {"rowsperstrip": 7, "compression": "lzw"},
    "strips-raw": {"rowsperstrip": 10},
    "one-strip-raw": {},
    "bigtiff-big-endian": {"byteorder": ">", "bigtiff": True, "rowsperstrip": 5},
}
LOSSY = {
    "tiles-jpeg": {"tile": (32, 48), "compression": "jpeg", "compressionargs": {"level": 95}},
    "strips-jpeg": {"rowsperstrip": 16, "compression": "jpeg", "compressionargs": {"level": 95}},
}


class TestLayouts(ReaderSuite):
    cases = (*ReaderSuite.cases, ((60, 70, 1), "float32"), ((60, 70, 3), "float32"))

    @pytest.fixture(autouse=True, params=LAYOUTS)
    def _layout(self, request):
        self.options = LAYOUTS[request.param]

    def open(self, folder, pixels):
        return open_slide(write(folder / "a.tif", pixels, **self.options))


class TestJpeg(TestLayouts):
    cases = (((97, 131, 3), "uint8"), ((97, 131, 1), "uint8"))
    tolerance = 12

    @pytest.fixture(autouse=True, params=LOSSY)
    def _layout(self, request):
        self.options = LOSSY[request.param]


class TestJpeg2000(ReaderSuite):
    def open(self, folder, pixels):
        return open_slide(write(folder / "a.tif", pixels, tile=(32, 48), compression="jpeg2000"))


PLANAR = {"strips": {"rowsperstrip": 9}, "tiles": {"tile": (32, 16), "compression": "zlib"}}


class TestPlanar(ReaderSuite):
    """Separate planes of one page."""

    @pytest.fixture(autouse=True, params=PLANAR)
    def _layout(self, request):
        self.options = PLANAR[request.param]

    def open(self, folder, pixels):
        if pixels.shape[2] == 1:
            return open_slide(write(folder / "a.tif", pixels, **self.options))
        planes = np.ascontiguousarray(pixels.transpose(2, 0, 1))
        options = {"photometric": "rgb", "planarconfig": "separate", **self.options}
        tifffile.imwrite(folder / "a.tif", planes, **options)
        return open_slide(folder / "a.tif")


class TestChannelFirst(ReaderSuite):
    """One page a channel, without any metadata."""

    cases = (((97, 131, 3), "uint8"), ((64, 50, 2), "uint16"), ((64, 50, 4), "float32"))

    def open(self, folder, pixels):
        with tifffile.TiffWriter(folder / "a.tif") as file:
            for channel in range(pixels.shape[2]):
                file.write(pixels[:, :, channel], photometric="minisblack", metadata=None, compression="zlib")
        return open_slide(folder / "a.tif")


class TestOme(ReaderSuite):
    cases = (((97, 131, 2), "uint8"), ((64, 50, 5), "uint16"), ((64, 50, 1), "uint16"))

    def open(self, folder, pixels):
        metadata = {"axes": "CYX", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm"}
        planes = pixels.transpose(2, 0, 1)
        tifffile.imwrite(
            folder / "a.ome.tif", planes, photometric="minisblack", tile=(32, 32), metadata=metadata
        )
        return open_slide(folder / "a.ome.tif")


class TestImageJ(ReaderSuite):
    cases = (((97, 131, 3), "uint8"), ((64, 50, 2), "uint16"), ((64, 50, 1), "float32"))

    def open(self, folder, pixels):
        planes = pixels.transpose(2, 0, 1)
        tifffile.imwrite(folder / "a.tif", planes, imagej=True, metadata={"axes": "CYX"})
        return open_slide(folder / "a.tif")


def pyramid(path, pixels, *, sub, **options):
    """Write three levels, as SubIFDs or as pages of their own."""
    grey = pixels.shape[2] == 1
    pixels = pixels[:, :, 0] if grey else pixels
    options = {"photometric": "minisblack" if grey else "rgb", "tile": (32, 32), **options}
    smaller = [pixels[::2, ::2], pixels[::4, ::4]]
    with tifffile.TiffWriter(path) as file:
        file.write(pixels, subifds=2 if sub else 0, **options)
        for level in smaller:
            file.write(level, subfiletype=1, **options)
    return path


class TestSubIfds(ReaderSuite):
    cases = (((97, 131, 3), "uint8"), ((128, 96, 1), "uint16"))

    def open(self, folder, pixels):
        reader = open_slide(pyramid(folder / "a.tif", pixels, sub=True))
        assert [level.downsample for level in reader.levels] == pytest.approx([1, 2, 4], rel=0.04)
        return reader


class TestReducedPages(ReaderSuite):
    cases = (((97, 131, 3), "uint8"), ((128, 96, 1), "uint16"))

    def open(self, folder, pixels):
        reader = open_slide(pyramid(folder / "a.tif", pixels, sub=False, metadata=None))
        assert len(reader.levels) == 3
        return reader


def test_ome_channels_and_scale(tmp_path):
    planes = np.random.default_rng(0).integers(0, 60000, (2, 3, 40, 50)).astype(np.uint16)  # z, c
    tifffile.imwrite(
        tmp_path / "a.ome.tif",
        planes,
        photometric="minisblack",
        metadata={
            "axes": "ZCYX",
            "PhysicalSizeX": 325,
            "PhysicalSizeXUnit": "nm",
            "Channel": {"Name": ["DAPI", "CD3", "CD8"]},
        },
    )
    with open_slide(tmp_path / "a.ome.tif") as reader:
        assert reader.channel_names == ("DAPI", "CD3", "CD8")
        assert reader.pixel_size == pytest.approx(0.325)
        assert np.array_equal(whole(reader), planes[0].transpose(1, 2, 0))
        assert any("z 0 of 2" in note for note in reader.notes)
    with open_slide(tmp_path / "a.ome.tif", z=1, channels=["cd8", 0]) as reader:
        assert reader.channel_names == ("CD8", "DAPI")
        assert reader.notes == ()
        assert np.array_equal(whole(reader), planes[1][[2, 0]].transpose(1, 2, 0))
    with pytest.raises(UsageError, match="no z=2; it has 0 to 1"):
        open_slide(tmp_path / "a.ome.tif", z=2)
    with pytest.raises(UsageError, match="only one plane along t"):
        open_slide(tmp_path / "a.ome.tif", t=1)
    with pytest.raises(UsageError, match="no channel 'CD4'; it has 0 'DAPI', 1 'CD3', 2 'CD8'"):
        open_slide(tmp_path / "a.ome.tif", channels=["CD4"])
    with pytest.raises(UsageError, match="name each channel once"):
        open_slide(tmp_path / "a.ome.tif", channels=["CD3", 1])


def test_ome_spread_over_files(tmp_path):
    first, second = picture((40, 50, 2), "uint8").transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "b.ome.tif", second, metadata=None)
    record = (
        '<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" '
        'UUID="urn:uuid:1"><Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" '
        'SizeX="50" SizeY="40" SizeC="2" SizeZ="1" SizeT="1">'
        '<TiffData IFD="0" FirstC="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:uuid:1</UUID></TiffData>'
        '<TiffData IFD="0" FirstC="1" PlaneCount="1"><UUID FileName="FILE">urn:uuid:2</UUID></TiffData>'
        "</Pixels></Image></OME>"
    )
    tifffile.imwrite(
        tmp_path / "a.ome.tif", first, metadata=None, description=record.replace("FILE", "b.ome.tif")
    )
    with open_slide(tmp_path / "a.ome.tif") as reader:
        assert np.array_equal(whole(reader), np.stack([first, second], axis=2))
    # A record must not lead out of its folder.
    (tmp_path / "in").mkdir()
    tricked = record.replace("FILE", "../b.ome.tif")
    tifffile.imwrite(tmp_path / "in" / "a.ome.tif", first, metadata=None, description=tricked)
    with pytest.raises(ImageError, match="outside its own folder"):
        open_slide(tmp_path / "in" / "a.ome.tif")


def test_svs_scale_and_baseline(shared_data):
    path = shared_data / "slides" / "CMU-1-Small-Region.svs"
    with open_slide(path) as reader:
        assert (reader.height, reader.width, reader.channels) == (2967, 2220, 3)
        assert reader.pixel_size == pytest.approx(0.499)
        assert np.array_equal(whole(reader), tifffile.imread(path))


def test_imagej_scale_names_and_display_colours(tmp_path):
    planes = picture((40, 50, 2), "uint8").transpose(2, 0, 1)
    tifffile.imwrite(
        tmp_path / "a.tif",
        planes,
        imagej=True,
        resolution=(4.0, 4.0),
        metadata={"axes": "CYX", "unit": "um", "Labels": ["nuclei", "membrane"]},
    )
    with open_slide(tmp_path / "a.tif") as reader:
        assert reader.pixel_size == pytest.approx(0.25)
        assert reader.channel_names == ("nuclei", "membrane")


@pytest.mark.parametrize(
    ("resolution", "unit", "wanted"),
    [
        ((40000, 40000), "CENTIMETER", 0.25),
        ((50800, 50800), "INCH", 0.5),
        ((72, 72), "INCH", None),
        ((300, 300), "INCH", None),
    ],
)
def test_scale_from_plain_tags(tmp_path, resolution, unit, wanted):
    tifffile.imwrite(
        tmp_path / "a.tif", np.zeros((8, 8), np.uint8), resolution=resolution, resolutionunit=unit
    )
    with open_slide(tmp_path / "a.tif") as reader:
        assert reader.pixel_size == (None if wanted is None else pytest.approx(wanted))


def test_rgba_loses_its_alpha(tmp_path):
    pixels = picture((40, 50, 4), "uint8")
    tifffile.imwrite(
        tmp_path / "a.tif", pixels, photometric="rgb", extrasamples=["unassalpha"], tile=(16, 16)
    )
    with open_slide(tmp_path / "a.tif") as reader:
        assert reader.channel_names == ("red", "green", "blue")
        assert np.array_equal(whole(reader), pixels[:, :, :3])


def test_palette_white_is_zero_and_bilevel(tmp_path):
    indices = np.arange(16 * 16, dtype=np.uint8).reshape(16, 16)
    colours = np.random.default_rng(0).integers(0, 65535, (3, 256)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "p.tif", indices, photometric="palette", colormap=colours)
    with open_slide(tmp_path / "p.tif") as reader:
        assert np.array_equal(whole(reader), (colours >> 8).astype(np.uint8).T[indices])
    with open_slide(tmp_path / "p.tif", channels=["green"]) as reader:
        assert np.array_equal(whole(reader)[:, :, 0], (colours >> 8).astype(np.uint8)[1][indices])
    tifffile.imwrite(tmp_path / "w.tif", indices, photometric="miniswhite")
    with open_slide(tmp_path / "w.tif") as reader:
        assert np.array_equal(whole(reader)[:, :, 0], 255 - indices)
    bits = indices % 3 == 0
    for photometric in ("minisblack", "miniswhite"):
        tifffile.imwrite(tmp_path / "b.tif", bits, photometric=photometric)
        with open_slide(tmp_path / "b.tif") as reader:
            assert reader.dtype == np.uint8
            assert np.array_equal(
                whole(reader)[:, :, 0] == 255, bits if photometric == "minisblack" else ~bits
            )


@pytest.mark.parametrize("dtype", ["int16", "uint32", "float64"])
def test_other_numbers_become_float(tmp_path, dtype):
    pixels = (np.arange(600).reshape(20, 30) - (300 if dtype == "int16" else 0)).astype(dtype)
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    with open_slide(tmp_path / "a.tif") as reader:
        assert reader.dtype == np.float32
        assert np.array_equal(whole(reader)[:, :, 0], pixels.astype(np.float32))


def test_stack_takes_the_first_page_and_says_so(tmp_path):
    stack = np.random.default_rng(0).integers(0, 255, (12, 20, 30), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", stack, photometric="minisblack")
    with open_slide(tmp_path / "a.tif") as reader:
        assert np.array_equal(whole(reader)[:, :, 0], stack[0])
        assert any("page 0 of 12" in note for note in reader.notes)
    with open_slide(tmp_path / "a.tif", page=7) as reader:
        assert np.array_equal(whole(reader)[:, :, 0], stack[7])
    with pytest.raises(UsageError, match="no page=12"):
        open_slide(tmp_path / "a.tif", page=12)


def test_takes_the_largest_series(tmp_path):
    small, large = np.zeros((20, 30), np.uint8), picture((60, 90, 1), "uint8")[:, :, 0]
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        for pixels in (small, large):
            file.write(pixels, metadata=None)
    with open_slide(tmp_path / "a.tif") as reader:
        assert np.array_equal(whole(reader)[:, :, 0], large)
    with open_slide(tmp_path / "a.tif", series=0) as reader:
        assert np.array_equal(whole(reader)[:, :, 0], small)
    with pytest.raises(UsageError, match="no series 2; it has 0 to 1"):
        open_slide(tmp_path / "a.tif", series=2)


def test_decodes_only_what_it_needs(tmp_path, monkeypatch):
    from cellseg.runtime.readers import tiff_pages

    pixels = picture((256, 320, 3), "uint8")
    write(tmp_path / "a.tif", pixels, tile=(32, 32), compression="zlib")
    decoded = []
    original = tiff_pages._decode
    monkeypatch.setattr(
        tiff_pages, "_decode", lambda page, index, data: decoded.append(index) or original(page, index, data)
    )
    with open_slide(tmp_path / "a.tif") as reader:
        reader.read(Region(40, 40, 10, 30))
        assert sorted(decoded) == [11, 12]
        # Rows that two bands share are decoded once.
        for y in range(0, 256, 16):
            reader.read(Region(y, 0, 16, 320))
        assert sorted(decoded) == list(range(80))


def test_missing_tiles_read_as_zero(tmp_path):
    pixels = picture((64, 64, 1), "uint8")[:, :, 0]
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as file:
        page = file.pages[0]
        page.tags["TileByteCounts"].overwrite([page.databytecounts[0], 0, *page.databytecounts[2:]])
    with open_slide(tmp_path / "a.tif") as reader:
        found = whole(reader)[:, :, 0]
    assert not found[:32, 32:].any()
    assert np.array_equal(found[32:], pixels[32:])


def test_names_a_damaged_tile_or_skips_it(tmp_path):
    pixels = picture((96, 96, 1), "uint16")[:, :, 0]
    tifffile.imwrite(tmp_path / "a.tif", pixels, tile=(32, 32), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as file:
        offset, count = file.pages[0].dataoffsets[4], file.pages[0].databytecounts[4]
    data = bytearray((tmp_path / "a.tif").read_bytes())
    data[offset : offset + count] = b"\x55" * count
    (tmp_path / "a.tif").write_bytes(data)
    with open_slide(tmp_path / "a.tif") as reader:
        assert np.array_equal(reader.read(Region(0, 0, 32, 96))[:, :, 0], pixels[:32])
        with pytest.raises(ImageError, match=r"a\.tif: tile 4 \(rows from 32, columns from 32\) cannot be"):
            whole(reader)
    with open_slide(tmp_path / "a.tif", skip_bad_tiles=True) as reader:
        found = whole(reader)[:, :, 0]
        assert len(reader.bad_blocks) == 1
        assert "tile 4" in reader.bad_blocks[0]
    assert not found[32:64, 32:64].any()
    assert np.array_equal(found[64:], pixels[64:])


@pytest.mark.parametrize("options", [{"tile": (32, 32), "compression": "zlib"}, {"rowsperstrip": 8}, {}])
def test_cut_short(tmp_path, options):
    path = write(tmp_path / "a.tif", picture((200, 200, 1), "uint8"), **options)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"a\.tif: .*(cut short|damaged)"):
        open_slide(path)


def test_refuses_absurd_headers_before_allocating(tmp_path):
    import struct
    import tracemalloc

    def header(width, height, *, tile=None):
        entries = [
            (256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1),
            (277, 3, 1, 1),
        ]  # fmt: skip
        if tile:
            entries += [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, 500), (325, 4, 1, 100)]
        else:
            entries += [(273, 4, 1, 500), (278, 4, 1, height), (279, 4, 1, 100)]
        entries.sort()
        body = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *e) for e in entries)
        return (b"II*\0" + struct.pack("<I", 8) + body + bytes(4)).ljust(1000, b"x")

    for name, data in {
        "strip.tif": header(100_000, 100_000),
        "tile.tif": header(100_000, 100_000, tile=131_072),
        "tiles.tif": header(100_000, 100_000, tile=256),
    }.items():
        (tmp_path / name).write_bytes(data)
        tracemalloc.start()
        with pytest.raises(ImageError, match=f"{name}: its header claims 100,000×100,000 pixels"):
            open_slide(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < 20e6
        tracemalloc.stop()


def aperio(path, pixels, compression):
    """Write a slide as Aperio's scanners do; channels are stored as they are given."""
    tifffile.imwrite(
        path,
        pixels,
        tile=(64, 64),
        compression=compression,
        photometric="rgb",
        description="Aperio Image Library v11.0\n128x128 |AppMag = 20|MPP = 0.5",
        metadata=None,
    )
    return path


def test_aperio_jpeg_2000(tmp_path, monkeypatch):
    pixels = picture((128, 128, 3), "uint8")
    with open_slide(aperio(tmp_path / "rgb.svs", pixels, 33005)) as reader:
        assert reader.pixel_size == 0.5
        assert np.array_equal(reader.read(Region(5, 6, 100, 90)), pixels[5:105, 6:96])
    openslide = pytest.importorskip("openslide")
    # The same numbers are meant as luma and colour differences: OpenSlide makes colours of them.
    path = aperio(tmp_path / "ycc.svs", pixels, 33003)
    with openslide.OpenSlide(path) as slide, open_slide(path) as reader:
        wanted = np.asarray(slide.read_region((6, 5), 0, (90, 100)))[:, :, :3]
        assert np.array_equal(reader.read(Region(5, 6, 100, 90)), wanted)
        assert not np.array_equal(wanted, pixels[5:105, 6:96])
        assert reader.pixel_size == 0.5
    monkeypatch.setitem(sys.modules, "openslide", None)
    with pytest.raises(ImageError, match=r"read by OpenSlide only: pip install 'cellseg\[slides\]'"):
        open_slide(path)


@pytest.mark.parametrize("skip", [False, True])
def test_missing_codecs_are_not_taken_for_damage(tmp_path, monkeypatch, skip):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, picture((128, 128, 3), "uint8"), tile=(64, 64), compression="jpeg2000")

    def missing(*arguments, **options):
        raise ImportError("no module named '_jpeg2k'")

    with monkeypatch.context() as patch:
        patch.setattr(tifffile.TIFF, "DECOMPRESSORS", {34712: missing})
        with open_slide(path, skip_bad_tiles=skip) as reader, pytest.raises(ImageError) as caught:
            reader.read(Region(0, 0, 128, 128))
        assert str(caught.value) == (
            f"{path}: no codec for its compression (JPEG2000, TIFF number 34712) is installed; pip install "
            "-U imagecodecs, or rewrite it: vips tiffsave IN OUT.tif --tile --compression deflate --bigtiff"
        )
    data = path.read_bytes()
    path.write_bytes(data.replace((34712).to_bytes(2, "little"), (34718).to_bytes(2, "little"), 1))
    with pytest.raises(ImageError, match=r"MDI_BINARY, TIFF number 34718.* pip install -U imagecodecs"):
        open_slide(path, skip_bad_tiles=skip)
