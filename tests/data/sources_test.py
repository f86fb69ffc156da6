import io
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjax.data import png, sources
from segjax.data.spec import VOID, DatasetSpec
from segjax.errors import InputError

SPEC = DatasetSpec(
    name="toy",
    classes=("road", "car"),
    palette=((128, 64, 128), (64, 0, 128)),
    table=((0, 0), (1, 1), (255, VOID)),
)


def _image(height: int = 6, width: int = 8) -> np.ndarray:
    image = np.zeros((height, width, 3), np.uint8)
    image[: height // 2] = (200, 20, 20)
    image[height // 2 :] = (20, 20, 200)
    return image


def _encoded(image: np.ndarray, kind: str, **options) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options)
    return file.getvalue()


def _write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def _pair(root: Path, name: str, label: np.ndarray | None = None, split: str = "train") -> None:
    label = np.zeros((6, 8), np.uint8) if label is None else label
    _write(root / "images" / split / f"{name}.png", _encoded(_image(), "PNG"))
    _write(root / "labels" / split / f"{name}.png", png.encode_indices(label, SPEC.palette))


def _source(root: Path) -> sources.FolderSource:
    return sources.FolderSource(pairs=sources.list_pairs(root, "train"), spec=SPEC)


def test_an_example_is_an_rgb_image_and_its_classes(tmp_path: Path):
    label = np.array([[0, 1, 255] + [0] * 5] * 6, np.uint8)
    _pair(tmp_path, "a", label)
    source = _source(tmp_path)
    image, read = source[0]
    assert len(source) == 1
    np.testing.assert_array_equal(image, _image())
    np.testing.assert_array_equal(read, label)


def test_a_source_survives_pickling(tmp_path: Path):
    _pair(tmp_path, "a")
    copy = pickle.loads(pickle.dumps(_source(tmp_path)))
    np.testing.assert_array_equal(copy[0][0], _image())


def test_names_are_paths_below_the_split_and_positions_are_sorted(tmp_path: Path):
    root = tmp_path / "images" / "labels"  # a root that looks like what is below it
    for name in ("d", "b", "city.x/a_1", "a.b"):
        _pair(root, name)
    source = _source(root)
    assert [source.name(i) for i in range(4)] == ["a.b", "b", "city.x/a_1", "d"]
    assert source.image_path(1) == root / "images" / "train" / "b.png"
    assert source.label_path(1) == root / "labels" / "train" / "b.png"


def test_names_of_files_elsewhere_are_paths_below_their_common_folder(tmp_path: Path):
    pairs = [(tmp_path / "x" / n, tmp_path / "y" / "m.png") for n in ("1.jpg", "z/2.jpg")]
    source = sources.FolderSource(pairs=pairs, spec=SPEC)
    assert [source.name(0), source.name(1)] == ["1", "z/2"]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_every_known_kind_of_image_is_read_as_rgb(tmp_path: Path, kind: str):
    image = sources.read_image(_write(tmp_path / "a", _encoded(_image(), kind)))
    assert image.dtype == np.uint8
    assert image.shape == (6, 8, 3)
    assert image[0, 0, 0] > 150 > image[0, 0, 2]
    assert image[-1, -1, 2] > 150 > image[-1, -1, 0]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_images_get_three_channels(tmp_path: Path, kind: str):
    data = _encoded(np.full((6, 8), 90, np.uint8), kind)
    image = sources.read_image(_write(tmp_path / "a", data))
    np.testing.assert_array_equal(image, np.full((6, 8, 3), 90))


def test_orientation_is_applied_only_where_asked(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter
    path = _write(tmp_path / "a.jpg", _encoded(_image(), "JPEG", exif=exif))
    assert sources.read_image(path).shape == (6, 8, 3)
    assert sources.read_image(path, upright=True).shape == (8, 6, 3)


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.999])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_truncated_jpeg_is_refused_by_name(tmp_path: Path, progressive: bool, share: float):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3)).astype(np.uint8)
    data = _encoded(noise, "JPEG", progressive=progressive)
    assert sources.decode_image(data, "a.jpg").shape == (64, 64, 3)
    path = _write(tmp_path / "a.jpg", data[: int(len(data) * share)])
    with pytest.raises(InputError, match=r"a\.jpg: the JPEG is truncated"):
        sources.read_image(path)


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_image():
    thumbnail = _encoded(_image(), "JPEG")
    data = _encoded(_image(), "JPEG", exif=b"Exif\0\0" + thumbnail)
    assert data.count(thumbnail) == 1
    sources.decode_image(data, "a.jpg")
    with pytest.raises(InputError, match="truncated"):
        sources.decode_image(data[:-2], "a.jpg")


def test_data_that_a_camera_appends_to_a_jpeg_are_ignored():
    data = _encoded(_image(), "JPEG") + b"video \xff\xda without an end"
    assert sources.decode_image(data, "a.jpg").shape == (6, 8, 3)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (_encoded(_image(), "PNG")[:-20], "truncated"),
        (_encoded(_image(), "BMP")[:-20], "not an image"),
        (b"hello", "not an image"),
        (b"", "not an image"),
        (_encoded(np.full((6, 8), 300, np.uint16), "PNG"), "uint16 samples"),
        (_encoded(np.full((6, 8), 300, np.uint16), "TIFF"), "uint16 samples"),
    ],
)
def test_an_unusable_image_is_refused_with_one_message(data: bytes, message: str, capfd):
    with pytest.raises(InputError, match=f"^a: .*{message}"):
        sources.decode_image(data, "a")
    assert capfd.readouterr().err == ""


def test_a_missing_file_is_named():
    with pytest.raises(InputError, match=r"nowhere\.jpg: No such file"):
        sources.read_image(Path("nowhere.jpg"))


def test_unusable_masks_are_refused_by_name(tmp_path: Path):
    _pair(tmp_path, "a")
    source, path = _source(tmp_path), tmp_path / "labels" / "train" / "a.png"
    for data, message in (
        (png.encode_indices(np.full((6, 8), 7, np.uint8), []), r"undeclared label id 7 \(48 pix"),
        (
            png.encode_indices(np.zeros((6, 9), np.uint8), []),
            r"6 x 9, but its image a\.png is 6 x 8",
        ),
        (_encoded(_image(), "PNG"), "an RGB mask"),
        (_encoded(np.full((6, 8), 300, np.uint16), "PNG"), "16-bit"),
    ):
        path.write_bytes(data)
        with pytest.raises(InputError, match=rf"labels/train/a\.png: .*{message}"):
            source[0]


def test_hidden_and_foreign_files_are_ignored(tmp_path: Path):
    _pair(tmp_path, "a")
    for name in (".DS_Store", "._a.png", "readme.txt", ".cache/b.png"):
        _write(tmp_path / "images" / "train" / name, b"")
    assert len(sources.list_pairs(tmp_path, "train")) == 1


def test_linked_folders_are_entered(tmp_path: Path):
    _pair(tmp_path / "real", "city/a")
    for kind in ("images", "labels"):
        folder = tmp_path / "set" / kind / "train"
        folder.mkdir(parents=True)
        (folder / "city").symlink_to(tmp_path / "real" / kind / "train" / "city")
    assert _source(tmp_path / "set").name(0) == "city/a"


def test_unpaired_files_are_counted_in_both_directions_and_three_named(tmp_path: Path):
    _pair(tmp_path, "both")
    for name in "abcd":
        _write(tmp_path / "images" / "train" / f"{name}.jpg", b"")
    _write(tmp_path / "labels" / "train" / "z.png", b"")
    with pytest.raises(InputError) as error:
        sources.list_pairs(tmp_path, "train")
    assert "4 images without a mask (a, b, c, ...)" in str(error.value)
    assert "1 masks without an image (z)" in str(error.value)


def test_two_files_for_one_example_are_refused(tmp_path: Path):
    _pair(tmp_path, "a")
    _write(tmp_path / "images" / "train" / "a.jpg", b"")
    with pytest.raises(InputError, match=r"a\.jpg and a\.png are two files"):
        sources.list_pairs(tmp_path, "train")


def test_missing_and_empty_folders_are_named(tmp_path: Path):
    with pytest.raises(InputError, match="images: no such folder"):
        sources.list_splits(tmp_path)
    (tmp_path / "images" / "train").mkdir(parents=True)
    with pytest.raises(InputError, match="images/train: holds no image"):
        sources.list_pairs(tmp_path, "train")
    with pytest.raises(InputError, match="images/val: no such folder"):
        sources.list_pairs(tmp_path, "val")
    _write(tmp_path / "images" / "train" / "a.png", b"")
    with pytest.raises(InputError, match="labels/train: no such folder"):
        sources.list_pairs(tmp_path, "train")


def test_a_cached_source_reads_once_and_its_arrays_are_read_only(tmp_path: Path):
    _pair(tmp_path, "a")
    folder = _source(tmp_path)
    source = sources.CachedSource(folder)
    image, _ = source[0]
    folder.image_path(0).unlink()
    assert source[0][0] is image
    assert (len(source), source.name(0)) == (1, "a")
    with pytest.raises(ValueError, match="read-only"):
        image[0] = 0
    with pytest.raises(InputError, match="No such file"):
        pickle.loads(pickle.dumps(source))[0]
