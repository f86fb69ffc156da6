import cv2
import numpy as np
import pytest

from segjax.data import annotations, catalog, png
from segjax.data.spec import VOID
from segjax.errors import InputError
from tests import tiny


def regions_of(rng, size=(6, 8)) -> np.ndarray:
    return rng.integers(1, 400, size).astype(np.uint16)


def test_every_annotator_gives_a_map_with_numbers_from_zero(tmp_path):
    rng = np.random.default_rng(0)
    masks = {10: regions_of(rng), 2: regions_of(rng)}
    tiny.write_regions(tmp_path, "a", masks)
    source = catalog.load_regions("bsds500", root=str(tmp_path)).splits["val"]
    image, maps = source[0]
    assert image.shape == (6, 8, 3)
    assert maps.dtype == np.int32
    for regions, k in zip(maps, (2, 10), strict=True):  # sorted by number, not as text
        assert regions.min() == 0
        order = np.unique(masks[k])
        np.testing.assert_array_equal(order[regions], masks[k])
    assert source.name(0) == "a"


def test_batches_hold_every_example_once_in_one_size_each(tmp_path):
    rng = np.random.default_rng(1)
    for i in range(5):
        size = (6, 8) if i % 2 else (8, 6)
        tiny.write_regions(tmp_path, f"{i}", {k: regions_of(rng, size) for k in range(1, 2 + i)})
    source = catalog.load_regions("bsds500", root=str(tmp_path)).splits["val"]
    chosen = np.arange(5)
    measures = annotations.sizes(source, chosen)
    np.testing.assert_array_equal(measures[:, 2], [1, 2, 3, 4, 5])
    seen = []
    for batch in annotations.batches(source, chosen, measures, 2):
        assert batch["segmentations"].shape == (2, 5, *batch["image"].shape[1:3])
        for row in np.flatnonzero(batch["weight"]):
            index = int(batch["index"][row])
            image, maps = source[index]
            seen.append(index)
            np.testing.assert_array_equal(batch["image"][row], image)
            np.testing.assert_array_equal(batch["segmentations"][row, : len(maps)], maps)
            assert (batch["segmentations"][row, len(maps) :] == -1).all()
            assert batch["annotators"][row] == index + 1
    assert sorted(seen) == [0, 1, 2, 3, 4]
    assert list(annotations.batches(source, [], np.zeros((0, 3), int), 2)) == []


def test_a_labelled_data_set_is_also_a_region_data_set():
    labelled = catalog.load("scenes", size=(48, 64)).splits["val"]
    source = catalog.load_regions("scenes", size=(48, 64)).splits["val"]
    image, maps = source[3]
    np.testing.assert_array_equal(image, labelled[3][0])
    assert maps.shape == (1, 48, 64)
    np.testing.assert_array_equal(np.where(maps[0] < 0, VOID, maps[0]), labelled[3][1])


def test_a_region_data_set_is_refused_where_classes_are_needed(tmp_path):
    with pytest.raises(InputError, match="'bsds500' has regions, but no classes .*such as slic"):
        catalog.load("bsds500", root=str(tmp_path))


def test_files_that_do_not_pair_up_are_named(tmp_path):
    rng = np.random.default_rng(2)
    tiny.write_regions(tmp_path, "a", {1: regions_of(rng)})
    splits = catalog.load_regions("bsds500", root=str(tmp_path)).splits
    labels = tmp_path / "labels" / "val"
    (labels / "a_1.png").rename(labels / "b_1.png")
    with pytest.raises(InputError, match="1 images without a mask, the first 'a'"):
        splits["val"]
    (labels / "b_1.png").rename(labels / "a.png")
    with pytest.raises(InputError, match="a.png: the name must end in _<k>"):
        splits["val"]


def test_a_mask_of_another_size_or_kind_is_named(tmp_path):
    rng = np.random.default_rng(3)
    tiny.write_regions(tmp_path, "a", {1: regions_of(rng), 2: regions_of(rng, (6, 9))})
    source = catalog.load_regions("bsds500", root=str(tmp_path)).splits["val"]
    with pytest.raises(InputError, match="a_2.png: the mask is 6 x 9"):
        annotations.sizes(source, [0])
    color = np.zeros((6, 8, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "labels" / "val" / "a_2.png"), color)
    with pytest.raises(InputError, match="a_2.png: region numbers must be grey PNGs"):
        source[0]


def test_a_label_map_of_16_bits_comes_back_as_it_was_written():
    labels = np.arange(70_000, dtype=np.int32).reshape(200, 350) % 65_536
    data = png.encode_regions(labels, "x.png")
    np.testing.assert_array_equal(png.decode_regions(data, "x.png"), labels)
    with pytest.raises(InputError, match="x.png: 65537 regions"):
        png.encode_regions(np.full((1, 1), 65_536), "x.png")
