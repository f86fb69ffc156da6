"""The protocol of a number: what config, flags and a run's own one come to."""

import dataclasses
import json

import numpy as np
import pytest

from segjax import crf as crfs
from segjax.errors import InputError
from segjax.evaluation import protocol as protocols
from segjax.evaluation import views
from segjax.evaluation.protocol import Protocol, Statistics
from tests import tiny

MANY = np.array([(40, 60 + i) for i in range(20)], np.int32)
ONE = np.array([(48, 64)] * 3, np.int32)


def resolve(sizes=ONE, *, text: str = "", crf: str = "", split: str = "", **changes):
    made = tiny.short_config(**changes)
    bucket = protocols.run_bucket(made, sizes)
    return protocols.resolve(made, bucket, split=split, views_text=text, crf_text=crf)


def test_it_takes_its_parts_from_the_config():
    made = tiny.short_config()
    found = resolve(eval__limit=5, input_scale=0.5)
    assert found == Protocol(
        split=made.eval.split,
        limit=5,
        batch_size=made.eval.batch_size,
        bucket=1,
        fill=made.preprocess.mean,
        input_scale=0.5,
        input_size=(0, 0),
        views=views.parse("single"),
    )


def test_flags_come_before_the_config():
    changes = {"eval__protocol": "fcn", "eval__crf__preset": "deeplab_v1"}
    own = resolve(**changes)
    assert own.views == views.parse("fcn")
    assert own.crf == crfs.build("deeplab_v1")
    found = resolve(text="single, flip=True", crf="none", split="test", **changes)
    assert found.views == views.parse("single, flip=True")
    assert found.crf is None
    assert found.split == "test"
    other = resolve(crf="deeplab_v1, w1=2.0", **changes)
    assert other.crf == crfs.parse("deeplab_v1, w1=2.0")


def test_images_that_are_seen_at_one_size_are_never_filled_up():
    for changes, bucket in (({"input_size": (24, 32)}, 1), ({}, 64)):
        assert resolve(MANY, **changes).bucket == bucket
    with pytest.raises(InputError, match="config.eval.bucket is 32; with config.input_size"):
        resolve(MANY, input_size=(24, 32), eval__bucket=32)


@pytest.mark.parametrize(
    ("text", "bucket"),
    [("single, tile=(9, 9)", 1), ("fcn", 1), ("single, bucket=7", 7), ("single", 64)],
)
def test_windows_and_views_say_what_images_are_filled_up_to(text, bucket):
    assert resolve(MANY, text=text).bucket == bucket


def test_the_bucket_of_a_run_holds_for_all_splits_and_views():
    made = tiny.short_config()
    assert [protocols.run_bucket(made, sizes) for sizes in (ONE, MANY)] == [1, 64]
    assert protocols.run_bucket(tiny.short_config(eval__bucket=7), MANY) == 7
    for split in ("val", "test"):
        for text in ("single", "single, flip=True", "single, bucket=0"):
            found = protocols.resolve(made, 5, split=split, views_text=text)
            assert found.bucket == 5


def test_labels_chosen_on_another_grid_are_not_refined():
    with pytest.raises(InputError, match="protocol argmax is 'input'"):
        resolve(text="single, scales=(0.5,), argmax='input'", crf="deeplab_v1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("deeplab_v9", "unknown 'deeplab_v9'; known: deeplab_v1, .* Did you mean"),
        ("deeplab_v1, theta=1", "unknown 'theta'"),
        ("deeplab_v1, w1=-1", "config.eval.crf.w1: -1; it must be a number, 0 or more"),
        ("deeplab_v1, 3", "is not a preset with key=value after it"),
    ],
)
def test_a_crf_that_is_not_known_is_refused(text, message):
    with pytest.raises(InputError, match=message):
        resolve(crf=text)


def test_it_survives_json_whole():
    plain = resolve(MANY)
    full = dataclasses.replace(
        resolve(MANY, text="pspnet_ms_flip, tile=(33, 33)", crf="deeplab_v1, w1=2.0"),
        statistics=Statistics("train", 12),
    )
    for protocol in (plain, full):
        stored = json.loads(json.dumps(protocol.to_json()))
        assert Protocol.from_json(stored) == protocol
    assert "statistics" not in plain.to_json()
    assert full.to_json()["statistics"] == {"split": "train", "batches": 12}


def test_what_was_stored_before_there_were_views_is_one_look():
    stored = resolve().to_json()
    for newer in ("views", "crf"):
        del stored[newer]
    assert Protocol.from_json(stored) == resolve()
