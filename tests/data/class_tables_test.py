import zlib

import numpy as np
import pytest

from segjax.data import class_tables
from segjax.data.spec import VOID, DatasetSpec
from segjax.errors import InputError

SPECS = (class_tables.CAMVID, class_tables.VOC2012, class_tables.CITYSCAPES, class_tables.ADE20K)


def _encoded(spec: DatasetSpec, *ids: int) -> list[int]:
    return spec.encode(np.array([ids], np.uint8), "a.png")[0].tolist()


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_every_class_has_a_unique_name_and_one_raw_id(spec: DatasetSpec):
    assert len(set(spec.classes)) == spec.num_classes
    assert all(name == name.strip() for name in spec.classes)
    classes = [index for _, index in spec.table if index != VOID]
    assert sorted(classes) == list(range(spec.num_classes))
    label = np.array([[*range(spec.num_classes), VOID]], np.uint8)
    np.testing.assert_array_equal(spec.encode(spec.decode(label), "a.png"), label)
    assert all(0 <= value <= 255 for color in spec.palette for value in color)


def _voc_color(index: int) -> tuple[int, int, int]:
    """The development kit's colour map: bits 0, 3, 6 of the index are red's highest, and so on."""
    return tuple(
        sum((index >> 3 * place + channel & 1) << 7 - place for place in range(3))
        for channel in range(3)
    )


def test_voc_has_21_classes_in_the_kits_order_and_the_colours_of_its_formula():
    spec = class_tables.VOC2012
    assert (spec.num_classes, spec.classes[0]) == (21, "background")
    assert list(spec.classes[1:]) == sorted(spec.classes[1:])
    assert (spec.classes[1], spec.classes[15], spec.classes[20]) == (
        "aeroplane",
        "person",
        "tv/monitor",
    )
    assert _voc_color(15) == (192, 128, 128)
    assert spec.palette == tuple(map(_voc_color, range(21)))
    assert spec.void_color == _voc_color(255)


def test_vocs_ids_are_its_classes_and_255_is_void():
    spec = class_tables.VOC2012
    assert dict(spec.table) == {i: i for i in range(21)} | {255: VOID}
    with pytest.raises(InputError, match="undeclared label id 21"):
        _encoded(spec, 21)


def test_voc_masks_of_colours_mean_the_same():
    rgb = np.array([[_voc_color(i) for i in (0, 15, 20, 255)]], np.uint8)
    ids = class_tables.VOC2012.ids_of_colors(rgb, "a.png")
    np.testing.assert_array_equal(ids, [[0, 15, 20, 255]])


def test_cityscapes_train_ids_are_those_of_its_scripts():
    spec = class_tables.CITYSCAPES
    train_ids = {7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10}
    train_ids |= {24: 11, 25: 12, 26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18}
    assert spec.num_classes == 19
    assert dict(spec.table) == {i: train_ids.get(i, VOID) for i in (*range(34), 255)}
    assert spec.decode(np.array([[VOID, 0, 18]], np.uint8)).tolist() == [[0, 7, 33]]
    with pytest.raises(InputError, match="undeclared label id 34"):
        _encoded(spec, 34)


def test_cityscapes_classes_have_their_official_names_and_colours():
    names = (
        "road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky "
        "person rider car truck bus train motorcycle bicycle"
    )
    assert class_tables.CITYSCAPES.classes == tuple(
        name.replace("_", " ") for name in names.split()
    )
    colors = (
        "804080 f423e8 464646 66669c be9999 999999 faaa1e dcdc00 6b8e23 98fb98 4682b4 "
        "dc143c ff0000 00008e 000046 003c64 005064 0000e6 770b20"
    )
    assert class_tables.CITYSCAPES.palette == tuple(tuple(bytes.fromhex(c)) for c in colors.split())


def test_ade20k_counts_its_150_classes_from_1_and_0_is_void():
    spec = class_tables.ADE20K
    assert spec.num_classes == 150
    assert dict(spec.table) == {0: VOID} | {i + 1: i for i in range(150)}
    assert _encoded(spec, 0, 1, 13, 150) == [VOID, 0, 12, 149]
    for beyond in (151, 255):
        with pytest.raises(InputError, match=f"undeclared label id {beyond}"):
            _encoded(spec, beyond)


def test_ade20k_has_the_names_and_colours_of_the_benchmark():
    spec = class_tables.ADE20K
    known = {  # raw id: objectInfo150's line and color150's row
        1: ("wall", (120, 120, 120)),
        3: ("sky", (6, 230, 230)),
        13: ("person", (150, 5, 61)),
        21: ("car", (0, 102, 200)),
        81: ("bus", (255, 0, 245)),
        90: ("television receiver", (0, 255, 194)),
        128: ("bicycle", (255, 245, 0)),
        150: ("flag", (92, 0, 255)),
    }
    entries = {raw: (spec.classes[raw - 1], spec.palette[raw - 1]) for raw in known}
    assert entries == known
    # Checksums of the rows of color150.mat and of the names in semseg's ade20k_names.txt.
    assert zlib.crc32(np.array(spec.palette, np.uint8).tobytes()) == 3620555175
    assert zlib.crc32("\n".join(spec.classes).encode()) == 2094690212
