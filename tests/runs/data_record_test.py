"""What is said of data that are not those of the run."""

import dataclasses
import pathlib

import numpy as np
import pytest

from segjax.data import scan
from segjax.data.dataset import numbered
from segjax.runs import data_record

SPEC = numbered("toy", ("road", "car"))


def scanned(examples: dict[str, tuple[int, int]], spec=SPEC, count: int | None = None) -> scan.Scan:
    """A scan of examples, name -> (checksum of the image, of the mask)."""
    return scan.Scan(
        sizes=np.ones((len(examples) if count is None else count, 2), np.int32),
        pixels=np.zeros(2, np.int64),
        void=0,
        images=np.zeros(2, np.int64),
        image_pixels=np.zeros(2, np.int64),
        raw={},
        spec=spec,
        digests=tuple(
            f'["{name}", 100, {image}, 50, {mask}]' for name, (image, mask) in examples.items()
        ),
    )


MADE = "stra\u00dfe/2"
BEFORE = {f"stra\u00dfe/{i}": (i, 10 + i) for i in range(6)}
CHANGES = {
    "another image": (BEFORE | {MADE: (2**32 - 1, 12)}, f"1 with another image: {MADE}"),
    "another mask": (BEFORE | {MADE: (2, 9)}, f"1 with another mask: {MADE}"),
    "added": (BEFORE | {"new": (1, 1)}, "6 examples then and 7 now; 1 added: new"),
    "gone": (dict(list(BEFORE.items())[4:]), "6 examples then and 2 now; 4 gone: .*/0, .*, ..."),
    "order": (dict(reversed(BEFORE.items())), "the examples are in another order"),
}  # fmt: skip


def trained(workdir: pathlib.Path, record: bool = True, **options) -> dict:
    """Metadata of a run, and the record in its folder."""
    before = scanned(BEFORE, **options)
    if record:
        data_record.write(workdir, {"train": before, "eval": scanned({"a": (1, 2)})})
    return {"spec": before.spec.to_json(), "data": {"train": before.fingerprint}}


@pytest.mark.parametrize("name", CHANGES)
def test_changed_files_are_named(tmp_path, name):
    now, told = CHANGES[name]
    error = data_record.refusal(tmp_path, trained(tmp_path), "train", "train", scanned(now))
    assert error is not None
    with pytest.raises(type(error), match=f"trained on other data: .*{told} ") as raised:
        raise error
    assert "(split 'train'). Give another --workdir." in str(raised.value)


def test_photographs_that_carry_an_orientation_have_a_record(tmp_path):
    """The record could not be written: their digests hold text between the numbers."""
    turned = dataclasses.replace(
        scanned({}), digests=('["a", 100, 1, "upright from 6", 50, 2]',), sizes=np.ones((1, 2))
    )
    data_record.write(tmp_path, {"train": turned, "eval": turned})
    before = {"spec": SPEC.to_json(), "data": {"train": turned.fingerprint}}
    now = dataclasses.replace(turned, digests=('["a", 100, 3, "upright from 6", 50, 2]',))
    error = data_record.refusal(tmp_path, before, "train", "train", now)
    assert error is not None
    assert "1 with another image: a" in str(error)


def test_the_same_data_under_another_name_are_no_change(tmp_path):
    meta = trained(tmp_path)
    moved = scanned(BEFORE, dataclasses.replace(SPEC, name="elsewhere"))
    assert data_record.refusal(tmp_path, meta, "train", "train", moved) is None
    before = scanned(BEFORE)
    meta["data"]["train"] = before.old_fingerprint("toy")
    assert data_record.refusal(tmp_path, meta, "train", "train", moved) is None


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (numbered("toy", ("road", "car", "tree")), "2 classes then and 3 now .1 new: tree."),
        (numbered("toy", ("car", "road")), r"another order \(car, road\)"),
        (dataclasses.replace(SPEC, table=((7, 0), (1, 1))), "other ids stand for the classes"),
        (dataclasses.replace(SPEC, palette=((1, 1, 1), (2, 2, 2))), "other colours"),
    ],
)
@pytest.mark.parametrize("record", [True, False])
def test_other_classes_are_told_even_of_older_runs(tmp_path, changed, told, record):
    meta = trained(tmp_path, record)
    error = data_record.refusal(tmp_path, meta, "train", "train", scanned(BEFORE, changed))
    with pytest.raises(type(error), match=told):
        raise error


def test_without_a_record_or_with_one_of_other_data_only_the_digests_are_known(tmp_path):
    meta = trained(tmp_path, record=False)
    now = scanned(CHANGES["added"][0])
    short = f"{meta['data']['train']} there, {now.fingerprint} now"
    for write in (
        lambda: None,
        lambda: data_record.write(tmp_path, {"train": now, "eval": now}),
        lambda: (tmp_path / "data.npz").write_bytes(b"PK damaged"),
    ):
        write()
        assert short in str(data_record.refusal(tmp_path, meta, "train", "train", now))


def test_fewer_of_a_generated_source_are_told(tmp_path):
    meta = trained(tmp_path, count=1000)
    error = data_record.refusal(tmp_path, meta, "train", "train", scanned(BEFORE, count=500))
    assert "1000 examples then and 500 now" in str(error)


def test_two_runs_are_told_apart(tmp_path):
    now = scanned(CHANGES["another mask"][0])
    meta = trained(tmp_path / "a")
    data_record.write(tmp_path / "b", {"train": now, "eval": now})
    pair = (tmp_path / "a", meta["data"]["train"]), (tmp_path / "b", now.fingerprint)
    told = data_record.difference(*pair)
    assert told == "6 examples in A and 6 in B; 1 with another mask: stra\u00dfe/2"
    assert data_record.difference(pair[0], (tmp_path / "c", "x")) == ""


def test_the_record_of_a_hundred_thousand_images_is_small(tmp_path):
    rng = np.random.default_rng(0)
    sums = rng.integers(0, 2**32, (100_000, 2)).tolist()
    many = scanned(
        {f"aachen/aachen_{i:06}_000019_leftImg8bit": pair for i, pair in enumerate(sums)}
    )
    data_record.write(tmp_path, {"train": many, "eval": scanned(BEFORE)})
    assert (tmp_path / "data.npz").stat().st_size < 2_500_000
