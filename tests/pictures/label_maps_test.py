import cv2
import numpy as np
import pytest

from segjax.data.spec import VOID, DatasetSpec
from segjax.pictures import label_maps, layout

NAMES = ("road", "a name that is much too long to stand in any legend", "car")
PALETTE = ((128, 64, 128), (0, 200, 0), (0, 0, 142))
SPEC = DatasetSpec("toy", NAMES, PALETTE, ((0, 0), (1, 1), (2, 2)), void_color=(9, 8, 7))
SIZES = [(1, 1), (1, 300), (300, 1), (7, 5), (97, 131)]


def example(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return image, rng.choice(np.array([0, 1, 2, VOID], np.uint8), (height, width))


def read(path) -> np.ndarray:
    return cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)


def has(picture: np.ndarray, color: tuple[int, int, int]) -> bool:
    return bool((picture == color).all(axis=-1).any())


def test_a_written_picture_is_read_back_with_its_colours(tmp_path):
    image, _ = example(4, 6)
    layout.write_png(tmp_path / "deep" / "er" / "picture.png", image)
    np.testing.assert_array_equal(read(tmp_path / "deep" / "er" / "picture.png"), image)
    assert [path.name for path in (tmp_path / "deep" / "er").iterdir()] == ["picture.png"]


def test_an_array_that_is_not_a_picture_is_refused():
    with pytest.raises(ValueError, match=r"float64 \[2, 2, 3\]"):
        layout.encode_png(np.zeros((2, 2, 3)))


def test_classes_and_void_get_their_colours():
    label = np.array([[0, 1], [2, VOID]], np.uint8)
    expected = [[PALETTE[0], PALETTE[1]], [PALETTE[2], SPEC.void_color]]
    np.testing.assert_array_equal(label_maps.colorize(label, SPEC), expected)


def test_a_class_that_the_spec_lacks_is_refused():
    with pytest.raises(ValueError, match="contains 3; toy allows classes 0 to 2"):
        label_maps.colorize(np.array([[0, 3]], np.uint8), SPEC)


@pytest.mark.parametrize("size", SIZES)
def test_an_overlay_keeps_the_size_of_the_image_and_hides_nothing(size):
    image, label = example(*size)
    picture = label_maps.overlay(image, label, SPEC, alpha=0.25)
    assert picture.dtype == np.uint8
    height, width = size
    assert picture.shape[0] >= height
    assert picture.shape[1] >= width
    assert picture.shape[0] > height or picture.shape[1] > width
    mixed = 0.75 * image + 0.25 * label_maps.colorize(label, SPEC)
    inner = ~label_maps.boundary(label)
    np.testing.assert_allclose(picture[:height, :width][inner], mixed[inner], atol=1)


def test_the_legend_of_an_overlay_lists_the_classes_that_occur_largest_first():
    label = np.zeros((60, 400), np.uint8)
    label[:, 100:] = 2
    legend = label_maps.overlay(np.zeros((60, 400, 3), np.uint8), label, SPEC)[60:]
    assert not has(legend, PALETTE[1])
    assert not has(legend, SPEC.void_color)
    first = [np.argwhere((legend == PALETTE[i]).all(axis=-1))[:, 1].min() for i in (2, 0)]
    assert first[0] < first[1]


def test_boundaries_are_thin_and_only_where_the_class_changes():
    label = np.zeros((6, 8), np.uint8)
    label[:, 4:] = 1
    edge = label_maps.boundary(label)
    assert edge.any(axis=0).tolist() == [False] * 3 + [True] + [False] * 4
    assert not label_maps.boundary(np.full((6, 8), VOID, np.uint8)).any()


@pytest.mark.parametrize("channels", [None, 1, 2, 5])
def test_images_with_other_numbers_of_channels_are_shown(channels):
    shape = (8, 8) if channels is None else (8, 8, channels)
    picture = label_maps.overlay(
        np.full(shape, 40, np.uint8), np.zeros((8, 8), np.uint8), SPEC, alpha=0
    )
    assert (picture[:8, :8] == 40).all()


def test_an_image_and_a_label_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\[4, 5, 3\] and \[5, 4\]"):
        label_maps.overlay(example(4, 5)[0], example(5, 4)[1], SPEC)


def test_a_panel_takes_rows_of_any_size():
    rows = [(*example(*size), example(*size, seed=1)[1]) for size in SIZES]
    picture = label_maps.panel(rows, SPEC, cell=64)
    assert picture.dtype == np.uint8
    assert picture.shape[1] >= 4 * 64
    single = label_maps.panel(rows[:1], SPEC, cell=64)
    assert picture.shape[0] > single.shape[0]


def test_a_panel_without_rows_is_titles_and_legend():
    assert has(label_maps.panel([], SPEC), PALETTE[2])


def test_a_small_scene_fills_its_cell():
    color = (40, 80, 120)
    image = np.full((96, 128, 3), color, np.uint8)
    label = np.zeros((96, 128), np.uint8)
    picture = label_maps.panel([(image, label, label)], SPEC)
    assert (picture == color).all(axis=-1).sum() == 192 * 256


def test_errors_are_red_correct_pixels_grey_and_void_is_hatched():
    image = np.full((1, 3, 3), 200, np.uint8)
    truth = np.array([[0, 0, VOID]], np.uint8)
    prediction = np.array([[0, 1, 1]], np.uint8)
    right, wrong, void = label_maps._errors(image, truth, prediction)[0].tolist()
    assert len(set(right)) == 1
    assert right[0] < 200
    assert wrong[0] > 200
    assert max(wrong[1:]) < 50
    assert void == layout.hatching(1, 3)[0, 2].tolist()


@pytest.mark.parametrize("count", [0, 1, 5])
def test_a_contact_sheet_takes_any_number_of_pairs_of_any_size(count):
    pairs = [example(*size) for size in SIZES[:count]]
    picture = label_maps.contact_sheet(pairs, SPEC, columns=2, cell=48)
    assert picture.shape[1] >= min(count, 2) * 48
    assert all(has(picture, color) for color in PALETTE)


def test_a_contact_sheet_shows_the_label_under_its_image():
    image, label = np.full((32, 48, 3), 50, np.uint8), np.full((32, 48), 1, np.uint8)
    picture = label_maps.contact_sheet([(image, label)], SPEC, cell=48)
    height = (picture[:, 0] == 50).all(axis=-1).sum()
    assert height >= 32
    below = (picture[:, 24] == PALETTE[1]).all(axis=-1).nonzero()[0]
    assert below.min() > (picture[:, 24] == 50).all(axis=-1).nonzero()[0].max()


def test_a_legend_is_never_cut_off():
    narrow = layout.legend([("x" * 26, (255, 0, 0))], width=1, size=15)
    assert narrow.shape[1] > 15 * 8
    assert (narrow[:, -4:] == 255).all()


def test_captions_stand_above_the_rows_of_a_panel():
    image, label = example(40, 60)
    plain = label_maps.panel([(image, label, label)] * 2, SPEC, cell=64)
    titled = label_maps.panel([(image, label, label)] * 2, SPEC, cell=64, captions=("one", "two"))
    assert titled.shape[0] > plain.shape[0]
    assert titled.shape[1] == plain.shape[1]


def test_differing_pixels_show_which_prediction_is_right():
    truth = np.zeros((8, 64), np.uint8)
    a, b = truth.copy(), truth.copy()
    a[:, :16], b[:, 16:32] = 1, 1  # B alone is right, then A alone
    a[:, 32:40], b[:, 32:40] = 1, 2  # neither
    truth[:, 56:] = VOID
    a[:, 56:] = 2  # without truth
    image = np.full((8, 64, 3), 90, np.uint8)
    picture = label_maps.disagreements([("x", image, truth, a, b)], SPEC, cell=64)
    marks = picture[:, -64:]
    for color, columns in ((label_maps._WRONG, 16), (label_maps._BETTER, 16), ((255, 255, 255), 8)):
        rows = (marks == color).all(-1).sum(1)
        assert (rows == columns).sum() >= 8, color
    assert has(label_maps.disagreements([], SPEC), PALETTE[2])
