"""Counts of batches added up into a result, in 64 bits."""

import numpy as np
import pytest

from segjax import metrics
from segjax.evaluation.result import cut, examples
from segjax.evaluation.sums import Sums
from segjax.metrics import confusion
from tests import tiny

K = tiny.K
BATCHES = ([7, 2, 5], [0, 9, -1])
LOSS = {7: 2**24, 0: 1}  # of a batch, by its first item; in float32 the sum would be the first


def batch_of(rows: list[int]) -> dict[str, np.ndarray]:
    """Items of the data set, -1 for fill, of sizes that differ."""
    batch = tiny.batch(sum(rows), rows=len(rows))
    sizes = [(32 - abs(row), 48 - 2 * abs(row)) for row in rows]
    return batch | {
        "size": np.array(sizes, np.int32),
        "index": np.array([max(row, 0) for row in rows], np.uint32),
        "weight": np.array([row >= 0 for row in rows], np.float32),
    }


def found(rows: list[int], scale: int = 1) -> tuple:
    """What `Labeller.batches` would give: rows, batch, results."""
    batch, rng = batch_of(rows), np.random.default_rng(sum(rows))
    confusions = rng.integers(0, scale, (len(rows), K, K), np.int32, endpoint=True)
    confusions[np.array(rows) < 0] = 0
    out = {
        "prediction": rng.integers(0, K, batch["label"].shape, np.uint8),
        "before": rng.integers(0, K, batch["label"].shape, np.uint8),
        "confusion_before": confusions[::-1],
        "counts": {
            "mean_iou": {"confusion": confusions},
            "calibration": {
                "pixels": rng.integers(1, 9, 15, np.int32),
                "right": rng.integers(0, 2, 15, np.int32),
                "confidence": rng.random(15).astype(np.float32),
            },
            "cross_entropy": {"loss": np.float32(LOSS[rows[0]]), "pixels": np.int32(2**31 - 1)},
        },
    }
    return np.array(rows), batch, out


@pytest.fixture(scope="module")
def summed():
    made = metrics.build(tiny.SPEC)
    sums = Sums(made, {2, 9})
    for rows in BATCHES:
        sums.add(*found(rows, 2**31 - 1))
    return sums.result(programs=3)


def test_totals_are_exact_beyond_32_bits(summed):
    result = summed
    total = sum(
        found(rows, 2**31 - 1)[2]["counts"]["mean_iou"]["confusion"].astype(object).sum(0)
        for rows in BATCHES
    )
    kept = result.totals["mean_iou"]["confusion"]
    assert kept.dtype == np.int64
    assert (kept.astype(object) == total).all()
    loss = result.totals["cross_entropy"]
    assert loss["pixels"] == 2 * (2**31 - 1)
    assert loss["pixels"].dtype == np.int64
    assert loss["loss"].dtype == np.float64
    np.testing.assert_array_equal(result.report.confusion, kept)


def test_images_keep_the_order_they_were_seen_in_without_fill(summed):
    result = summed
    assert result.index.tolist() == [7, 2, 5, 0, 9]
    assert result.examples == 5
    counts = [found(rows, 2**31 - 1)[2]["counts"]["mean_iou"]["confusion"] for rows in BATCHES]
    expected = confusion.marginals(np.concatenate([counts[0], counts[1][:2]]).astype(np.int64))
    np.testing.assert_array_equal(result.marginals, expected)


def test_the_panel_holds_the_images_asked_for_at_their_sizes(summed):
    result = summed
    assert [image.shape[:2] for image, *_ in result.panel] == [(30, 44), (23, 30)]
    assert [m.shape for m in result.maps["before"]] == [(30, 44), (23, 30)]
    _, batch, out = found(BATCHES[0], 2**31 - 1)
    image, truth, prediction = result.panel[0]
    np.testing.assert_array_equal(image, batch["image"][1, :30, :44])
    np.testing.assert_array_equal(truth, batch["label"][1, :30, :44])
    np.testing.assert_array_equal(prediction, out["prediction"][1, :30, :44])


def test_scalars_are_those_of_every_metric_and_of_before_a_crf(summed):
    result = summed
    scalars = result.scalars()
    assert set(scalars) == {
        "miou", "pixel_accuracy", "mean_accuracy", "fwiou", "ece", "loss", "miou_before_crf"
    }  # fmt: skip
    assert scalars["miou_before_crf"] == result.before.miou
    assert scalars["loss"] == (2**24 + 1) / (2 * (2**31 - 1))
    assert set(result.descriptions) == {"mean_iou", "calibration", "cross_entropy"}


def test_rows_of_fill_are_no_examples():
    batch = batch_of([4, -1, 3])
    assert list(cut(batch, batch["label"])) == [4, 3]
    assert {i: part.shape for i, part in cut(batch, batch["image"]).items()} == {
        4: (28, 40, 3), 3: (29, 42, 3)
    }  # fmt: skip
    assert set(examples(batch, batch["label"])) == {3, 4}
