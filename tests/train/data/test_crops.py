"""Crops: pure functions of (seed, index), cut sparingly, right at the image's edge."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cellseg.train.config import TrainConfig
from cellseg.train.data.crops import Crops, CropSource, StepSampler
from cellseg.train.data.placement import Form, Placement
from cellseg.train.data.planes import padded_targets
from cellseg.train.data.samples import Sample
from cellseg.train.data.shares import shares_of_sets
from cellseg.train.looks.augment import GAMMA, STAINED

Configure = Callable[..., TrainConfig]


def sample(height: int, width: int, seed: int = 0, cells: bool = True) -> Sample:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 1), np.uint8)
    labels = np.zeros((height, width), np.int32)
    if cells:
        labels[:] = np.kron(rng.integers(0, 5, (-(-height // 7), -(-width // 7))), np.ones((7, 7)))[
            :height, :width
        ]
    density = (labels > 0).astype(np.float32) / 49
    return Sample("s", image, labels, (labels == 1).astype(np.uint8), density)


def test_crops_depend_on_seed_and_index_alone(configure: Configure) -> None:
    samples = [sample(50, 70, seed) for seed in range(3)]
    first, second = CropSource(samples, configure()), CropSource(samples, configure())
    second.crop(3)
    for index in (0, 7):
        for name, plane in first.crop(index).items():
            np.testing.assert_array_equal(plane, second.crop(index)[name])
    other = CropSource(samples, configure(randseed=1))
    assert any((first.crop(i)["image"] != other.crop(i)["image"]).any() for i in range(3))


def test_each_epoch_shows_every_image_once_in_its_own_order(configure: Configure) -> None:
    samples = [Sample(str(i), s.image, s.labels) for i in range(6) if (s := sample(20, 20))]
    source = CropSource(samples, configure())
    epochs = [[source.sample_of(6 * epoch + i).name for i in range(6)] for epoch in range(3)]
    assert all(sorted(epoch) == list("012345") for epoch in epochs)
    assert epochs[0] != epochs[1] or epochs[1] != epochs[2]


def test_an_edge_of_the_image_is_no_boundary_of_a_cell(configure: Configure) -> None:
    """A cell cut by the image's edge goes on, for all we know; the runtime reflects there too."""
    labels = np.ones((20, 20), np.int32)
    whole = Sample("s", np.zeros((20, 20, 1), np.uint8), labels, None, labels / np.float32(400))
    source = CropSource([whole], configure(crop=32))
    for index in range(20):
        crop = source.crop(index)
        assert not crop["boundary"].any()
        assert 0 < crop["valid"].sum() < 32 * 32
        assert (crop["mask"] == 1).all()
    _, planes = padded_targets(whole, configure(), 8)
    assert planes["valid"].sum() == 400
    assert planes["boundary"].shape == (24, 24)
    assert not planes["boundary"].any()


def test_labels_are_never_blurred(configure: Configure) -> None:
    source = CropSource([sample(40, 40)], configure(augment=2.0))
    for index in range(30):
        assert set(np.unique(source.crop(index)["labels"])) <= {0, 1, 2, 3, 4}


def test_a_share_of_the_fluorescence_is_to_look_stained(configure: Configure) -> None:
    base = sample(40, 40)
    for level, wanted in ((3, range(15, 45)), (1, range(1))):
        grey = np.repeat(base.image // level, 3, axis=2)  # a third of the brightness is dark
        crops = Crops(CropSource([replace(base, image=grey)], configure(in_channels=3, stained=0.5)))
        assert sum(bool(crops[i]["look"][STAINED.start]) for i in range(60)) in wanted


def fluorescence(size: int = 64) -> Sample:
    """Three channels of grey, two bright squares on a dark ground."""
    labels = np.zeros((size, size), np.int32)
    labels[8:20, 8:20], labels[36:50, 30:44] = 1, 2
    image = np.repeat(np.where(labels > 0, 160, 12).astype(np.uint8)[..., None], 3, axis=2)
    return Sample("f", image, labels)


def test_a_share_of_the_fluorescence_is_redrawn_as_sections(configure: Configure) -> None:
    grey = fluorescence()
    source = CropSource([grey], configure(in_channels=3, tissue=0.5, crop=64, use_density=0.0))
    redrawn = [source.redraws(grey, i) for i in range(60)]
    assert 15 < sum(redrawn) < 45
    for i in range(12):
        crop = source.crop(i)
        coloured = bool((crop["image"].max(axis=2) != crop["image"].min(axis=2)).any())
        assert coloured == (redrawn[i] and bool(crop["labels"].any()))
        np.testing.assert_array_equal(crop["mask"] > 0, crop["labels"] > 0)
    bright = replace(grey, image=255 - grey.image)
    assert not any(source.redraws(bright, i) for i in range(60))


def test_crops_come_at_other_sizes_and_keep_what_is_known(configure: Configure) -> None:
    grey = fluorescence(200)
    plain, far = (
        CropSource([grey], configure(in_channels=3, augment=0.0, zoom=zoom, crop=64)) for zoom in (1.0, 3.0)
    )
    assert {plain.form(grey, i).zoom for i in range(40)} == {1.0}
    zooms = np.array([far.form(grey, i).zoom for i in range(200)])
    assert zooms.min() < 0.5
    assert zooms.max() > 2
    assert 60 < np.count_nonzero(zooms == 1) < 140


def test_stretching_keeps_areas(configure: Configure) -> None:
    form = Form(1.0, 2.5, 0.7)
    assert float(np.linalg.det(form.matrix())) == pytest.approx(1)
    grey = fluorescence()
    place = Placement.draw(np.random.default_rng(1), 64, 64, 128, 0.0, form)
    found = np.count_nonzero(place.warp((grey.labels == 1).astype(np.float32), smooth=False)[32:96, 32:96])
    assert found > 0
    axes = np.linalg.svd(place.matrix[:, :2])[1]
    assert axes[0] / axes[1] == pytest.approx(2.5)


def test_pixels_of_which_nothing_is_known_count_in_no_loss(configure: Configure) -> None:
    grey = fluorescence()
    ignored = np.zeros((64, 64), np.bool_)
    ignored[:, 40:] = True
    source = CropSource([replace(grey, ignored=ignored)], configure(in_channels=3, augment=0.0, crop=64))
    valid = source.crop(0)["valid"]
    assert valid.mean() == pytest.approx(40 / 64)
    _, planes = padded_targets(source.samples[0], source.config, 8)
    np.testing.assert_array_equal(planes["valid"] > 0, ~ignored)


def test_shares_of_data_sets_hold_whatever_their_sizes(configure: Configure) -> None:
    config = configure(dataset_path=[{"path": "a", "share": 3}, "b"], crowding=1.0)
    rare = replace(sample(40, 40), origin=1)
    samples = [sample(40, 40, seed) for seed in range(5)] + [rare]
    chances = shares_of_sets(samples, config)
    assert chances.sum() == pytest.approx(1)
    assert chances[5] == pytest.approx(0.25)
    assert CropSource(samples, config).chances == pytest.approx(chances)
    assert shares_of_sets(samples[:5], config).sum() == pytest.approx(1)  # one brings no training images


def test_bright_pictures_have_a_strength_of_their_own(configure: Configure) -> None:
    base = sample(40, 40)
    dots = base.image // 128 * 80  # two levels: whatever lies between them is interpolated
    dark = Sample("d", dots, base.labels)
    bright = Sample("b", 255 - dots, base.labels)
    for config, moved in (
        (configure(augment=0.0, augment_bright=1.0), bright),
        (configure(augment=1.0, augment_bright=0.0), dark),
    ):
        for one in (dark, bright):
            source = CropSource([one], config)
            looks = torch.stack([Crops(source)[i]["look"] for i in range(8)])
            assert (looks[:, GAMMA].unique().numel() > 1) == (one is moved)
            exact = all(np.isin(source.crop(i)["image"], one.image).all() for i in range(8))
            assert exact == (one is not moved)
    assert CropSource([], configure(augment=0.7)).strength(bright) == 0.7


def test_density_keeps_its_mass_under_scaling(configure: Configure) -> None:
    flat = Sample("s", np.zeros((99, 99, 1), np.uint8), np.ones((99, 99), np.int32), None, None)
    mass = Sample("s", flat.image, flat.labels, None, np.full((99, 99), 0.01, np.float32))
    source = CropSource([mass], configure())
    for index in range(10):
        place = Placement.draw(np.random.default_rng([0, 2, index]), 99, 99, 32, 1.0)
        density = source.crop(index)["density"]
        np.testing.assert_allclose(density, 0.01 / place.scale**2, rtol=1e-5)


def test_given_maps_move_with_the_image(configure: Configure) -> None:
    base = sample(40, 40)
    marked = Sample(
        "s", (base.labels == 1).astype(np.uint8)[..., None] * 255, base.labels, base.boundary, None
    )
    source = CropSource([marked], configure())
    for index in range(10):
        crop = source.crop(index)
        np.testing.assert_array_equal(crop["boundary"], crop["labels"] == 1)
        assert (np.abs(crop["image"][..., 0] / 255 - crop["boundary"]) < 1).all()


def test_items_are_tensors_of_one_shape(configure: Configure) -> None:
    item = Crops(CropSource([sample(40, 40)], configure()))[5]
    assert item["image"].shape == (1, 32, 32)
    assert item["image"].dtype == torch.uint8
    assert int(item["index"]) == 5
    for name in ("mask", "boundary", "density", "emphasis", "valid"):
        assert item[name].shape == (32, 32)
        assert item[name].dtype == torch.float32


def test_small_cells_and_contacts_are_emphasised(configure: Configure) -> None:
    labels = np.zeros((96, 96), np.int32)
    labels[10:90, 10:60], labels[40:45, 70:75], labels[10:90, 60:66] = 1, 2, 3
    whole = Sample("s", np.zeros((96, 96, 1), np.uint8), labels)
    config = configure(augment=0.0, crop=32, small_weight=3.0, touch_weight=6.0)
    large, small = 3 * 100 / 4000, 3.0  # of the whole cell, not of what a crop shows of it
    for index in range(20):
        crop = CropSource([whole], config).crop(index)
        values = {np.float32(v) for v in np.unique(crop["emphasis"])}
        assert values <= {np.float32(v) for v in (0, large, 3 * 100 / 480, 6 + 3 * 100 / 480, small)}
        assert (crop["emphasis"][crop["labels"] == 2] == small).all()
    assert padded_targets(whole, config, 8)[1]["emphasis"][50, 30] == np.float32(large)
    assert not padded_targets(whole, configure(), 8)[1]["emphasis"].any()


@pytest.mark.parametrize("multiple", [1, 8, 32])
@pytest.mark.parametrize("margin", [0, 5, 32])
def test_whole_images_are_reflected_by_a_margin_and_to_a_multiple(
    configure: Configure, multiple: int, margin: int
) -> None:
    whole = sample(21, 40)
    image, planes = padded_targets(whole, configure(), multiple, margin)
    height, width = (-(-(edge + 2 * margin) // multiple) * multiple for edge in (21, 40))
    assert image.shape == (height, width, 1)
    inside = slice(margin, margin + 21), slice(margin, margin + 40)
    np.testing.assert_array_equal(image[inside], whole.image)
    np.testing.assert_array_equal(planes["valid"][inside], 1)
    assert planes["valid"].sum() == 21 * 40
    if margin:
        np.testing.assert_array_equal(image[margin - 1, inside[1]], whole.image[1])


@given(st.integers(0, 20), st.integers(1, 4), st.integers(1, 3))
def test_ranks_share_each_batch_of_one_process(start: int, batch: int, ranks: int) -> None:
    parts = [list(StepSampler(start, start + 3, batch, rank, ranks)) for rank in range(ranks)]
    shared = [[index for part in parts for index in part[step]] for step in range(3)]
    assert shared == list(StepSampler(start, start + 3, batch * ranks))
    assert list(StepSampler(start + 1, start + 3, batch)) == list(StepSampler(start, start + 3, batch))[1:]
