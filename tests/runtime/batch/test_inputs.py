"""Files, folders, patterns and manifests."""

import pytest

from cellseg.runtime.batch.inputs import Input, expand, result_names
from cellseg.runtime.errors import UsageError


@pytest.fixture
def tree(tmp_path):
    for name in ("b.tif", "a.PNG", "notes.txt", ".hidden.tif", "sub/c.svs", "sub/a.png", "e.zarr/zarr.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    return tmp_path


def found(tree, *arguments):
    return [item.image.removeprefix(f"{tree}/") for item in expand(arguments)]


def test_folders_patterns_files_and_urls(tree):
    assert found(tree, tree) == ["a.PNG", "b.tif", "e.zarr"]
    assert found(tree, tree / "sub" / "c.svs") == ["sub/c.svs"]
    assert found(tree, tree / "e.zarr") == ["e.zarr"]
    assert found(tree, f"{tree}/*.tif") == ["b.tif"]
    assert found(tree, f"{tree}/**/*.[ps]*") == ["sub/a.png", "sub/c.svs"]
    assert found(tree, "https://host/a.zarr", tree / "missing.tif") == ["https://host/a.zarr", "missing.tif"]


def test_each_image_once(tree):
    (tree / "link.tif").symlink_to(tree / "b.tif")
    assert found(tree, tree / "b.tif", tree, f"{tree}/b*") == ["b.tif", "a.PNG", "e.zarr"]


def test_a_file_with_magic_in_its_name_is_that_file(tree):
    (tree / "odd[1].tif").write_text("")
    assert found(tree, tree / "odd[1].tif") == ["odd[1].tif"]


def test_nothing_found(tree):
    (tree / "empty").mkdir()
    with pytest.raises(
        UsageError,
        match=r"empty: this folder holds no image; it has none of .* none lies",
    ):
        expand([tree / "empty"])
    with pytest.raises(UsageError, match=r"\*\.gif: this pattern matches no image"):
        expand([f"{tree}/*.gif"])


def test_what_to_say_of_a_folder_is_true(tree):
    (tree / "above" / "below").mkdir(parents=True)
    (tree / "above" / "below" / "a.PNG").write_text("")
    with pytest.raises(UsageError, match=r"for those in folders below it give '.*above/\*\*/\*\.PNG'$"):
        expand([tree / "above"])
    assert found(tree, f"{tree}/above/**/*.PNG") == ["above/below/a.PNG"]
    (tree / "other").mkdir()
    (tree / "other" / "x.czi").write_text("")
    with pytest.raises(UsageError, match=r"x\.czi: a Zeiss CZI file; convert it to OME-TIFF"):
        expand([tree / "other"])


def test_manifest(tree):
    (tree / "m.csv").write_text(
        "\ufeffimage,mpp,channels,z,levels,roi,tissue,min_score,diameter\n"
        'b.tif,0.25,"DAPI, CD3",2,10 200.5,r.geojson,auto,0.2,auto\n'
        "https://host/a.zarr,,,,,,,,12.5\n",
        encoding="utf-8",
    )
    first, second = expand([tree / "m.csv"])
    assert first.image == str(tree / "b.tif")
    assert first.options == {
        "pixel_size": 0.25,
        "channels": ("DAPI", "CD3"),
        "levels": (10, 200.5),
        "z": 2,
        "roi": str(tree / "r.geojson"),
        "tissue": "auto",
        "min_score": 0.2,
        "diameter": "auto",
    }
    assert second == Input("https://host/a.zarr", {"diameter": 12.5})
    (tree / "m.tsv").write_text("image\tz\nb.tif\t0\nb.tif\t1\n")
    assert [item.options["z"] for item in expand([tree / "m.tsv"])] == [0, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "one of them 'image', and at least one row; found nothing"),
        ("a,b\n1,2\n", "found 'a', 'b'"),
        ("image\n", "at least one row"),
        ("image,channel\na,b\n", "column 'channel' is not known; did you mean 'channels'"),
        ("image,tisue\na,b\n", "column 'tisue' is not known; did you mean 'tissue'"),
        ("image,patient\na,b\n", "column 'patient' is not known; known are image, channels, mpp, diameter"),
        ("image,levels\na.tif,1 2 3\n", "line 2: levels is '1 2 3', wanted two numbers, black and white"),
        ("image,tissue\na.tif,yes\n", "line 2: tissue is 'yes', wanted auto or none"),
        (
            "image,diameter\na.tif,0\n",
            "line 2: diameter is '0', wanted a number of pixels above 0, auto or none",
        ),
        ("image,min_score\na.tif,2\n", "line 2: min_score is '2', wanted a number from 0 to 1"),
        ("image,min_score\na.tif,low\n", "line 2: min_score is 'low', wanted a number from 0 to 1"),
        ("image,mpp\na.tif,fine\n", "line 2: mpp is 'fine', wanted a number"),
        ("image,z\na.tif,1\nb.tif,1.5\n", "line 3: z is '1.5', wanted a whole number"),
        ("image,z\n ,1\n", "line 2: names no image"),
        (b"image\n\xff\xfe\n", "cannot be read as a manifest: it is not in UTF-8"),
        ("image,name\n../\0etc/passwd,x\n", "cannot be read as a manifest: it holds null characters"),
        ("image\na.tif,b.tif\n", "line 2 has 2 cells, the first line 1"),
        ("image,z,z\na.tif,1,2\n", "two columns are called 'z'"),
        (f"image\n{'a' * 5000}.tif\n", "line 2: image has 5,004 characters, wanted 4,096 at most"),
        (f"image,roi\na.tif,{'a' * 5000}\n", "line 2: roi has 5,000 characters"),
        (f"image\n{'a' * 200_000}.tif\n", "field larger than field limit"),
        (f"{'a' * 5000}\nb\n", "found 'aaa"),
        (f"image,{'a' * 5000}\nb,c\n", "column 'aaa"),
        (f"image,z\na.tif,{'x' * 4090}\n", "line 2: z is 'xxx"),
    ],
)
def test_bad_manifest(tmp_path, text, message):
    (tmp_path / "m.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=message) as caught:
        expand([tmp_path / "m.csv"])
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < len(str(tmp_path)) + 300


def test_names_that_are_too_long_are_names_that_are_not_there(tmp_path):
    for name in ("a" * 300, "a" * 300 + ".csv", f"{tmp_path}/{'b/' * 3000}c.tif"):
        assert expand([name]) == [Input(name)]
    with pytest.raises(UsageError, match="this pattern matches no image"):
        expand(["x" * 300 + "*.tif"])


def test_result_names():
    def names(*images):
        return result_names([Input(image) for image in images])

    assert names("x/a.tif", "x/b.ome.tif") == ["a", "b"]
    assert names("x/a.tif", "y/a.tif", "b.tif") == ["x_a", "y_a", "b"]
    assert names("x/a.tif", "x/A.png") == ["x_a_tif", "x_A_png"]
    assert result_names([Input("a.tif", name="one"), Input("a.tif", {"z": 1}, "two")]) == [
        "one",
        "two",
    ]
    assert names("x/e\u0301.tif", "y/\u00e9.tif") == ["x_e\u0301", "y_\u00e9"]  # one name to some disks
    with pytest.raises(UsageError, match=r"x/a.tif and x/a.tif would both be written to 'x_a_tif_"):
        names("x/a.tif", "x/a.tif")


def test_fields_of_a_plate_are_told_apart():
    """They are all called 0, and so are the columns of every row."""
    fields = [
        Input(f"plate.zarr/{row}/{column}/{field}") for row in "BC" for column in "23" for field in "01"
    ]
    names = result_names(fields)
    assert len(set(names)) == 8
    assert names[0] == "B_2_0"
    days = [Input(f"{patient}/day1/img.tif") for patient in ("p1", "p2")]
    assert result_names(days) == ["p1_day1_img_tif", "p2_day1_img_tif"]
