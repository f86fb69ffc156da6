"""Mean IoU and the accuracies of label maps."""

import numpy as np
import pytest

from segjax.metrics import confusion
from segjax.metrics.mean_iou import MeanIoU
from segjax.metrics.metric import Pixels, add
from tests import tiny
from tests.metrics import made


@pytest.fixture(scope="module")
def counted():
    """Logits, labels and the counts of every image."""
    logits, label = made.scored()
    metric = MeanIoU(tiny.SPEC)
    counts = {k: np.asarray(v) for k, v in metric.count(Pixels.of(logits, label)).items()}
    return metric, logits, label, counts


def test_every_image_has_its_confusion_matrix(counted):
    _, logits, label, counts = counted
    assert counts["confusion"].dtype == np.int32
    for row in range(3):
        expected = np.zeros((tiny.K, tiny.K), int)
        valid = label[row] != tiny.VOID
        np.add.at(expected, (label[row][valid], logits[row].argmax(-1)[valid]), 1)
        np.testing.assert_array_equal(counts["confusion"][row], expected)


def test_marginals_of_every_image_are_kept_and_give_the_interval(counted):
    metric, _, _, counts = counted
    kept, total = metric.keep(counts), add({}, counts, by_image=True)
    assert kept["marginals"].shape == (3, 3, tiny.K)
    assert kept["marginals"].dtype == np.int64
    np.testing.assert_array_equal(kept["marginals"].sum(0), confusion.marginals(total["confusion"]))
    scores = metric.scores(total)
    report = confusion.report(total["confusion"])
    assert scores == {
        "miou": report.miou,
        "pixel_accuracy": report.pixel_accuracy,
        "mean_accuracy": report.mean_accuracy,
        "fwiou": report.fwiou,
    }
    words, fields = metric.describe(total, kept)
    assert f"mIoU {100 * scores['miou']:.2f}" in words
    assert fields["miou_interval"]["low"] <= scores["miou"] <= fields["miou_interval"]["high"]
    assert fields["classes_counted"] == tiny.K
    assert list(fields["iou"]) == list(fields["accuracy"]) == list(tiny.SPEC.classes)
    np.testing.assert_allclose(list(fields["iou"].values()), report.iou)


def test_absent_classes_are_marked():
    metric = MeanIoU(tiny.SPEC)
    matrix = np.zeros((1, tiny.K, tiny.K), int)
    matrix[0, 0, 0], matrix[0, 1, 0] = 6, 2
    total = {"confusion": matrix.sum(0)}
    _, fields = metric.describe(total, metric.keep({"confusion": matrix}))
    assert fields["classes_counted"] == 2
    assert fields["iou"] == {"a": 0.75, "b": 0.0, "c": "absent", "d": "absent", "e": "absent"}
    assert metric.scores(total)["miou"] == pytest.approx(0.375)
