"""Image files as a source."""

import cv2
import numpy as np
import pytest

from segjax.data.spec import VOID
from segjax.errors import InputError
from segjax.photographs import source


def write(path, height: int, width: int) -> None:
    cv2.imwrite(str(path), np.full((height, width, 3), (10, 20, 30), np.uint8))


def test_a_folder_gives_its_images_by_name_with_their_sizes_and_no_truth(tmp_path):
    write(tmp_path / "b.PNG", 5, 7)
    write(tmp_path / "a.png", 3, 4)
    (tmp_path / "notes.txt").touch()
    images = source.find(tmp_path)
    assert [images.name(i) for i in range(len(images))] == ["a", "b"]
    np.testing.assert_array_equal(images.sizes(), [[3, 4], [5, 7]])
    image, label = images[1]
    assert image[0, 0].tolist() == [30, 20, 10]  # RGB
    assert (label == VOID).all()
    (first, _) = images.named()
    assert first[0] == "a"
    np.testing.assert_array_equal(first[1], images[0][0])


def test_one_file_is_taken_whatever_its_suffix(tmp_path):
    write(tmp_path / "x.png", 3, 4)
    (tmp_path / "x.png").rename(tmp_path / "x.image")
    assert source.find(tmp_path / "x.image").sizes().tolist() == [[3, 4]]


def test_what_is_no_image_is_one_line(tmp_path):
    with pytest.raises(InputError, match="no file or folder .*nowhere"):
        source.find(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no image \(.jpg, "):
        source.find(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="bad.png"):
        source.find(tmp_path).sizes()
    write(tmp_path / "a.png", 3, 4)
    write(tmp_path / "a.bmp", 3, 4)
    with pytest.raises(InputError, match="several images named 'a'"):
        source.find(tmp_path)
