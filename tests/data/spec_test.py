import json
import pickle

import numpy as np
import pytest

from segjax.data.spec import VOID, DatasetSpec, hls_palette
from segjax.errors import InputError


def _spec(**changes) -> DatasetSpec:
    fields = {
        "name": "toy",
        "classes": ("road", "car"),
        "palette": ((128, 64, 128), (64, 0, 128)),
        "table": ((7, 0), (8, 0), (26, 1), (0, VOID), (255, VOID)),
    }
    return DatasetSpec(**{**fields, **changes})


def test_raw_ids_become_the_classes_of_the_table():
    raw = np.array([[7, 8, 26], [0, 255, 7]], np.uint8)
    label = _spec().encode(raw, "a.png")
    assert label.dtype == np.uint8
    np.testing.assert_array_equal(label, [[0, 0, 1], [VOID, VOID, 0]])


def test_decoding_writes_the_first_raw_id_of_a_class():
    label = np.array([[0, 1, VOID]], np.uint8)
    np.testing.assert_array_equal(_spec().decode(label), [[7, 26, 0]])


def test_an_undeclared_id_is_refused_with_its_pixel_count_and_the_declared_ids():
    raw = np.array([[7, 9, 9, 11]], np.uint8)
    with pytest.raises(InputError) as error:
        _spec().encode(raw, "a.png")
    assert str(error.value) == (
        "a.png: undeclared label id 9 (2 pixels), 11 (1 pixels); toy declares 0, 7, 8, 26, 255."
    )


def test_a_message_about_many_ids_stays_short():
    spec = _spec(table=tuple((i, 0) for i in range(100)) + ((255, VOID),))
    with pytest.raises(InputError) as error:
        spec.encode(np.arange(100, 250, dtype=np.uint8)[None], "a.png")
    assert "and 145 more; toy declares 0-99, 255." in str(error.value)


def test_the_mark_of_undeclared_ids_is_not_a_class_of_the_largest_spec():
    count = 254
    spec = _spec(
        classes=tuple(map(str, range(count))),
        palette=hls_palette(count),
        table=tuple((i, i) for i in range(count)),
    )
    raw = np.arange(count, dtype=np.uint8)[None]
    np.testing.assert_array_equal(spec.encode(raw, "a.png"), raw)
    with pytest.raises(InputError, match="254"):
        spec.encode(np.array([[254]], np.uint8), "a.png")


def test_colours_become_raw_ids_and_an_unknown_colour_is_refused():
    spec = _spec(colors=(((255, 0, 0), 26), ((0, 0, 1), 7), ((0, 0, 0), 0)))
    rgb = np.array([[[0, 0, 1], [255, 0, 0], [0, 0, 0]]], np.uint8)
    np.testing.assert_array_equal(spec.ids_of_colors(rgb, "a.png"), [[7, 26, 0]])
    rgb[0, 0] = (0, 1, 0)
    with pytest.raises(InputError, match=r"a\.png: colour \(0, 1, 0\) \(1 pixels\)"):
        spec.ids_of_colors(rgb, "a.png")


def test_a_spec_without_colours_refuses_rgb_masks():
    with pytest.raises(InputError, match=r"a\.png: an RGB mask"):
        _spec().ids_of_colors(np.zeros((1, 1, 3), np.uint8), "a.png")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": ()}, "0 classes"),
        ({"palette": ((0, 0, 0),)}, "1 colours for 2 classes"),
        ({"table": ((256, 0),)}, "raw id 256"),
        ({"table": ((0, 2),)}, "mapped to class 2"),
        ({"table": ((0, 0), (0, 1))}, "twice"),
        ({"colors": (((1, 2, 3), 7), ((1, 2, 3), 26))}, "two raw ids"),
        ({"colors": (((1, 2, 3), 99),)}, r"\[99\]"),
        ({"channel": "alpha"}, "unknown channel 'alpha'.*equal, red, green, blue"),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(changes: dict, message: str):
    with pytest.raises(InputError, match=message):
        _spec(**changes)


def test_a_spec_survives_json_and_pickle():
    spec = _spec(colors=(((1, 2, 3), 7),), void_color=(9, 9, 9))
    assert DatasetSpec.from_json(json.loads(json.dumps(spec.to_json()))) == spec
    by_channel = _spec(channel="blue")
    assert DatasetSpec.from_json(json.loads(json.dumps(by_channel.to_json()))) == by_channel
    spec.encode(np.full((1, 1), 7, np.uint8), "a.png")
    assert pickle.loads(pickle.dumps(spec)) == spec


def test_a_spec_without_a_channel_is_written_without_that_key():
    assert (
        "channel" not in _spec().to_json()
    )  # fingerprints of old run folders were computed without it


def test_palette_colours_differ():
    assert len(set(hls_palette(40))) == 40
