"""Image files as a source."""

import cv2
import numpy as np
import pytest
from PIL import Image

from segjax.data import sources
from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.photographs import source
from tests.data import exif_test


def write(path, height: int, width: int) -> None:
    cv2.imwrite(str(path), np.full((height, width, 3), (10, 20, 30), np.uint8))


def test_a_folder_gives_its_images_by_name_with_their_sizes_and_no_truth(tmp_path):
    write(tmp_path / "b.PNG", 5, 7)
    write(tmp_path / "a.png", 3, 4)
    (tmp_path / "notes.txt").touch()
    images = source.find(tmp_path)
    assert [images.name(i) for i in range(len(images))] == ["a", "b"]
    good, sizes, left_out = images.examined()
    assert (good.paths, len(left_out)) == (images.paths, 0)
    np.testing.assert_array_equal(sizes, [[3, 4], [5, 7]])
    image, label = images[1]
    assert image[0, 0].tolist() == [30, 20, 10]  # RGB
    assert (label == VOID).all()
    (first, _) = images.named()
    assert first[0] == "a"
    np.testing.assert_array_equal(first[1], images[0][0])


def test_one_file_is_taken_whatever_its_suffix(tmp_path):
    write(tmp_path / "x.png", 3, 4)
    (tmp_path / "x.png").rename(tmp_path / "x.image")
    images = source.find(tmp_path / "x.image")
    assert images.name(0) == "x"
    assert images.examined()[1].tolist() == [[3, 4]]


def test_a_folder_is_read_as_that_of_a_data_set(tmp_path):
    for name in ("b.png", "c/a.ppm", "c/d.e/a.png", "out/b.png", ".hidden/x.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write(tmp_path / name, 3, 4)
    (tmp_path / "._b.png").write_bytes(b"of a Mac")
    expected = [stem for stem in sources.files_by_stem(tmp_path) if stem != "out/b"]
    images = source.find(tmp_path, tmp_path / "out")
    assert [images.name(i) for i in range(len(images))] == sorted(expected)
    assert sorted(expected) == ["b", "c/a", "c/d.e/a"]
    with pytest.raises(InputError, match="--output: .* is the folder of the photographs"):
        source.find(tmp_path, tmp_path / "c" / "..")


def test_photographs_stand_upright(tmp_path):
    image = Image.new("RGB", (4, 3))
    (tmp_path / "a.jpg").write_bytes(exif_test.oriented(image, "JPEG", 6))
    images, sizes, _ = source.find(tmp_path).examined()
    assert sizes.tolist() == [[4, 3]]
    assert images[0][0].shape == (4, 3, 3)


def test_bad_files_are_told_at_the_end_and_the_others_are_read(tmp_path, capsys):
    write(tmp_path / "a.png", 3, 4)
    (tmp_path / "b.png").write_bytes(b"no image")
    write(tmp_path / "c.png", 5, 6)
    images, sizes, left_out = source.find(tmp_path).examined()
    assert [images.name(i) for i in range(len(images))] == ["a", "c"]
    assert sizes.tolist() == [[3, 4], [5, 6]]
    with left_out.guard("c"):
        raise InputError("it is too small")
    with pytest.raises(InputError, match=r"2 of 3 photographs have no result; first: .*b\.png"):
        left_out.finish()
    lines = capsys.readouterr().out.splitlines()
    assert ["b.png: not an image" in lines[0], lines[1]] == [True, "c: it is too small"]


def test_what_is_wrong_with_all_photographs_is_told_once():
    left_out = source.LeftOut(2)
    left_out.finish()
    for name in "ab":
        left_out.add("an option is wrong", name)
    with pytest.raises(InputError, match="^an option is wrong$"):
        left_out.finish()


def test_what_is_no_image_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no file or folder .*nowhere"):
        source.find(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no image file \(.jpg, "):
        source.find(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"no image")
    images, _, left_out = source.find(tmp_path).examined()
    assert len(images) == 0
    with pytest.raises(InputError, match=r"^[^ ]*bad\.png: not an image"):
        left_out.finish()
    write(tmp_path / "a.png", 3, 4)
    write(tmp_path / "a.bmp", 3, 4)
    with pytest.raises(InputError, match=r"a\.bmp and a\.png are two files"):
        source.find(tmp_path)
