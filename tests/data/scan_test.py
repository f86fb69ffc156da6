import dataclasses
import json
import os
import shutil
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from segjax.data import catalog, png, scan, sources
from segjax.data.spec import VOID, DatasetSpec
from segjax.errors import InputError
from tests.data import exif_test

SPEC = DatasetSpec(
    name="toy",
    classes=("road", "car", "sign"),
    palette=((1, 1, 1), (2, 2, 2), (3, 3, 3)),
    table=((10, 0), (11, 0), (20, 1), (30, 2), (0, VOID)),
)

OLD_RUN = Path(__file__).parent.parent / "fixtures" / "run_26ab59c.zip"

# Image a has 2 + 1 pixels of road, 1 of car and 2 void; image b has 6 of road; sign is absent.
LABELS = {"a": [[10, 11, 20], [11, 0, 0]], "b": [[10, 10, 10], [10, 10, 10]]}


def _source(root: Path, labels: dict | None = None) -> sources.FolderSource:
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True, exist_ok=True)
    for name, ids in (LABELS if labels is None else labels).items():
        label = np.array(ids, np.uint8)
        Image.new("RGB", label.shape[::-1]).save(root / "images" / "train" / f"{name}.png")
        _mask(root, name).write_bytes(png.encode_indices(label, []))
    return sources.FolderSource(pairs=sources.list_pairs(root, "train"), spec=SPEC)


def _mask(root: Path, name: str) -> Path:
    return root / "labels" / "train" / f"{name}.png"


def _scan(source, cache: Path, **options) -> scan.Scan:
    return scan.scan(source, SPEC, name="toy train", cache=cache, **options)


def test_a_scan_counts_the_pixels_of_the_masks(tmp_path: Path):
    result = _scan(_source(tmp_path), tmp_path / "cache")
    np.testing.assert_array_equal(result.sizes, [[2, 3], [2, 3]])
    np.testing.assert_array_equal(result.pixels, [9, 1, 0])
    np.testing.assert_array_equal(result.images, [2, 1, 0])
    np.testing.assert_array_equal(result.image_pixels, [10, 4, 0])
    assert (result.void, result.sampled) == (2, 2)
    assert result.raw == {0: 2, 10: 7, 11: 2, 20: 1}
    assert (result.sizes.dtype, result.pixels.dtype) == (np.int32, np.int64)


def test_a_turned_image_has_another_fingerprint_and_no_other_image_has(tmp_path: Path):
    source = _source(tmp_path)
    image, files = tmp_path / "images" / "train" / "a.png", []
    for name in "ab":
        sizes = [(p.stat().st_size, zlib.crc32(p.read_bytes())) for p in _files_of(tmp_path, name)]
        files.append(json.dumps([name, *sizes[0], *sizes[1]]))
    assert _scan(source, tmp_path / "cache").digests == tuple(files)  # by the rule of before
    image.write_bytes(exif_test.oriented(Image.open(image), "PNG", 3))
    turned = _scan(source, tmp_path / "cache").digests
    assert turned[1] == files[1]
    assert "upright from 3" in turned[0]


def _files_of(root: Path, name: str) -> tuple[Path, Path]:
    return root / "images" / "train" / f"{name}.png", _mask(root, name)


def test_every_problem_is_found_and_the_message_is_one_line(tmp_path: Path):
    labels = {name: [[10, 10, 10]] * 40 for name in "abcdef"}
    source = _source(tmp_path, labels)
    _mask(tmp_path, "b").write_bytes(_mask(tmp_path, "b").read_bytes()[:-5])
    _mask(tmp_path, "c").write_bytes(png.encode_indices(np.full((40, 3), 99, np.uint8), []))
    _mask(tmp_path, "d").write_bytes(png.encode_indices(np.full((40, 4), 99, np.uint8), []))
    Image.fromarray(np.zeros((40, 3), np.uint16)).save(_mask(tmp_path, "e"))
    Image.new("RGB", (3, 40)).save(_mask(tmp_path, "f"))
    (tmp_path / "images" / "train" / "f.png").write_bytes(b"hello")
    with pytest.raises(scan.ScanError) as error:
        _scan(source, tmp_path / "cache")
    text = str(error.value)
    assert text.startswith("toy train: 7 problems in 5 of 6 examples (undeclared ids 2, ")
    assert "\n" not in text
    for kind in ("truncated 1", "size mismatch 1", "16 bit 1", "unreadable 1", "RGB mask 1"):
        assert kind in text
    assert text.endswith(error.value.problems[0])
    assert "labels/train/b.png" in error.value.problems[0]
    assert len(error.value.problems) == 7


def test_undeclared_ids_are_all_found_even_in_a_mask_of_another_size(tmp_path: Path):
    source = _source(tmp_path)
    _mask(tmp_path, "a").write_bytes(png.encode_indices(np.full((1, 1), 99, np.uint8), []))
    with pytest.raises(scan.ScanError) as error:
        _scan(source, tmp_path / "cache")
    assert ["99" in p for p in error.value.problems] == [True, False]


def test_an_unchanged_source_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source, lines = _source(tmp_path), []
    first = _scan(source, tmp_path / "cache")
    with monkeypatch.context() as patch:
        patch.setattr(scan, "_examine_files", None)
        again = _scan(source, tmp_path / "cache", log=lines.append)
        with pytest.raises(TypeError):
            _scan(source, tmp_path / "cache", fresh=True)
    assert "unchanged" in lines[0]
    for field in ("sizes", "pixels", "images", "image_pixels"):
        np.testing.assert_array_equal(getattr(first, field), getattr(again, field))
        assert getattr(first, field).dtype == getattr(again, field).dtype
    assert (first.raw, first.void, first.digests) == (again.raw, again.void, again.digests)
    assert first.fingerprint == again.fingerprint
    assert first.old_fingerprint("toy") == again.old_fingerprint("toy")


def test_a_changed_mask_or_spec_is_read_again(tmp_path: Path):
    source = _source(tmp_path)
    mask, results, sizes = _mask(tmp_path, "b"), [], []
    for nanoseconds, raw in ((10**9, 10), (2 * 10**9, 20)):
        mask.write_bytes(png.encode_indices(np.full((2, 3), raw, np.uint8), [(0, 0, 0)] * 256))
        os.utime(mask, ns=(nanoseconds, nanoseconds))
        sizes.append(mask.stat().st_size)
        results.append(_scan(source, tmp_path / "cache"))
    first, second = results
    assert sizes[0] == sizes[1]  # only the date tells them apart
    np.testing.assert_array_equal(second.pixels, [3, 7, 0])
    assert first.fingerprint != second.fingerprint
    other = DatasetSpec("toy", ("all",), ((0, 0, 0),), tuple((i, 0) for i in range(256)))
    result = scan.scan(source, other, name="toy", cache=tmp_path / "cache")
    np.testing.assert_array_equal(result.pixels, [12])


def test_the_fingerprint_does_not_depend_on_folder_or_dates(tmp_path: Path):
    first = _scan(_source(tmp_path / "x"), tmp_path / "cache")
    shutil.copytree(tmp_path / "x", tmp_path / "y" / "z", copy_function=shutil.copyfile)
    pairs = sources.list_pairs(tmp_path / "y" / "z", "train")
    second = _scan(sources.FolderSource(pairs=pairs, spec=SPEC), tmp_path / "other")
    assert first.fingerprint == second.fingerprint


def test_the_fingerprint_depends_on_the_spec_but_not_on_its_name(tmp_path: Path):
    source = _source(tmp_path)
    renamed = dataclasses.replace(SPEC, name="other")
    recoloured = dataclasses.replace(SPEC, palette=((1, 1, 1), (2, 2, 2), (4, 4, 4)))
    first, second, third = (
        scan.scan(source, spec, name="toy", cache=tmp_path / "cache")
        for spec in (SPEC, renamed, recoloured)
    )
    assert first.fingerprint == second.fingerprint != third.fingerprint
    assert first.old_fingerprint("toy") != first.old_fingerprint("other")
    assert first.old_fingerprint("toy") == second.old_fingerprint("toy")


def test_a_renamed_folder_is_the_same_data_and_a_changed_mask_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The data set and the stored fingerprints are those of a run folder of commit 26ab59c."""
    monkeypatch.setenv("SEGJAX_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(OLD_RUN) as file:
        file.extractall(tmp_path)
    meta = json.loads((tmp_path / "run/checkpoints/4/meta/metadata").read_text())
    stored = {"train": meta["data"]["train"], "val": meta["data"]["eval"]}
    before = _scan_folder(tmp_path / "streets")
    (tmp_path / "streets").rename(tmp_path / "avenues")
    after = _scan_folder(tmp_path / "avenues")
    for scans in (before, after):
        assert {split: s.old_fingerprint("streets") for split, s in scans.items()} == stored
    for split in before:
        assert before[split].fingerprint == after[split].fingerprint != stored[split]
    mask = tmp_path / "avenues/labels/val/0.png"
    label = png.decode_mask(mask.read_bytes(), str(mask))
    label[0, 0] = label[0, 0] == 0
    mask.write_bytes(png.encode_indices(label, []))
    changed = _scan_folder(tmp_path / "avenues")
    assert changed["train"].fingerprint == after["train"].fingerprint
    assert changed["val"].fingerprint != after["val"].fingerprint
    assert changed["val"].old_fingerprint("streets") != stored["val"]


def _scan_folder(root: Path) -> dict[str, scan.Scan]:
    dataset = catalog.load("folder", root=str(root))
    return {
        split: scan.scan(dataset.splits[split], dataset.spec, name=split)
        for split in ("train", "val")
    }


@pytest.mark.parametrize("content", [b"", b"[]", b"{}", b'{"raw": 1}', b"\xff"])
def test_a_damaged_cache_is_ignored(tmp_path: Path, content: bytes):
    source = _source(tmp_path)
    _scan(source, tmp_path / "cache")
    for path in (tmp_path / "cache").iterdir():
        path.write_bytes(content)
    assert _scan(source, tmp_path / "cache").sampled == 2


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path: Path):
    (tmp_path / "file").write_text("")
    assert _scan(_source(tmp_path), tmp_path / "file" / "cache").sampled == 2


def test_a_cached_source_is_scanned_as_its_files(tmp_path: Path):
    source = _source(tmp_path)
    result = _scan(sources.CachedSource(source), tmp_path / "cache")
    assert result.fingerprint == _scan(source, tmp_path / "cache").fingerprint


class _Generated:
    """A generated source: class i % 2 everywhere, one void pixel."""

    size = (4, 5)

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        label = np.full(self.size, index % 2, np.uint8)
        label[0, 0] = VOID
        return np.zeros((*self.size, 3), np.uint8), label

    def name(self, index: int) -> str:
        return f"{index:06d}"


def test_a_generated_source_is_sampled(tmp_path: Path):
    result = _scan(_Generated(1000), tmp_path / "cache")
    assert result.sampled == scan.SAMPLED == 200
    np.testing.assert_array_equal(result.sizes, np.tile([4, 5], (1000, 1)))
    np.testing.assert_array_equal(result.pixels, [1900, 1900, 0])
    assert result.void == 200
    assert result.raw == {10: 1900, 20: 1900, 0: 200}
    assert _scan(_Generated(30), tmp_path / "cache").sampled == 30


def test_an_undeclared_class_is_refused_in_a_source_without_files(tmp_path: Path):
    single = DatasetSpec("toy", ("road",), ((1, 1, 1),), ((0, 0),))
    with pytest.raises(scan.ScanError, match="000001: class 1, but 0 to 0 are allowed"):
        scan.scan(_Generated(3), single, name="toy", cache=tmp_path)


def test_an_empty_source_is_refused(tmp_path: Path):
    with pytest.raises(InputError, match="contains no example"):
        _scan(_Generated(0), tmp_path)


def test_ids_are_counted_without_a_spec(tmp_path: Path):
    labels = [label for _, label in _source(tmp_path).pairs]
    for _ in range(2):  # counted, then remembered
        assert scan.find_ids(labels, cache=tmp_path / "c") == {0: 2, 10: 7, 11: 2, 20: 1}


@pytest.mark.skipif(not os.environ.get("SEGJAX_DATA"), reason="needs CamVid in $SEGJAX_DATA")
def test_camvid_train_has_the_published_pixel_counts(tmp_path: Path):
    dataset = catalog.load("camvid")
    result = scan.scan(dataset.splits["train"], dataset.spec, name="camvid", cache=tmp_path)
    assert result.pixels.tolist() == [
        *(10682767, 14750079, 623349, 20076880, 2845085, 6166762),
        *(743859, 714595, 3719877, 405385, 184967),
    ]
    assert result.void == 2503995
    np.testing.assert_array_equal(np.unique(result.sizes, axis=0), [[360, 480]])
