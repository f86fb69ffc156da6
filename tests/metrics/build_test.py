"""The metrics of an evaluation: the built-in ones and those that a config adds."""

import pytest

from segjax import metrics
from segjax.errors import InputError
from tests import tiny
from tests.metrics import made

SURE, CONFIDENT, CORNER, LOUD = (
    f"tests.metrics.made:{name}" for name in ("Sure", "Confident", "Corner", "Loud")
)


def names(**options) -> list[str]:
    return [metric.name for metric in metrics.build(tiny.SPEC, **options)]


def test_metrics_of_whole_images_are_built_only_for_details():
    assert names() == ["mean_iou", "calibration", "cross_entropy"]
    assert names(details=True) == ["mean_iou", "calibration", "cross_entropy", "boundaries"]
    assert names(details=True) == list(metrics.METRICS)


def test_class_weights_go_to_the_cross_entropy():
    found = metrics.build(tiny.SPEC, class_weights=(1.0, 2.0, 3.0, 4.0, 5.0))
    assert found[2].class_weights == (1.0, 2.0, 3.0, 4.0, 5.0)
    assert all(metric.spec is tiny.SPEC for metric in found)


def test_a_configs_metrics_follow_with_their_options_and_names():
    more = (SURE, CONFIDENT, CORNER)
    assert names(more=more)[3:] == ["sure", "Confident"]
    assert names(more=more, details=True)[4:] == ["sure", "Confident", "corner"]
    found = metrics.build(tiny.SPEC, more=((SURE, {"above": 0.75}),))[-1]
    assert isinstance(found, made.Sure)
    assert found.above == 0.75


@pytest.mark.parametrize(
    ("more", "told"),
    [
        (("boundries",), "config.eval.metrics: unknown 'boundries'.*Did you mean \"boundaries\""),
        ((f"{SURE}r",), "config.eval.metrics: cannot import .*has no 'Surer'.*Did you mean"),
        (("nowhere_at_all:Sure",), "config.eval.metrics: cannot import 'nowhere_at_all:Sure'"),
        (
            ((SURE, {"abvoe": 1}),),
            "config.eval.metrics: .*takes no 'abvoe'.*Did you mean \"above\"",
        ),
        ((SURE, SURE), "config.eval.metrics: two metrics are named 'sure'"),
        (("mean_iou",), "config.eval.metrics: two metrics are named 'mean_iou'"),
        (("tests.metrics.made:scored",), "is not a subclass of segjax.metrics.Metric"),
        (("tests.metrics.made:NOT_A_METRIC",), "is a int, which cannot be called"),
    ],
)
def test_an_entry_that_is_not_a_metric_is_refused(more, told):
    with pytest.raises(InputError, match=told):
        metrics.build(tiny.SPEC, more=more)


def test_only_scalars_of_pixel_metrics_can_choose_a_checkpoint():
    found = metrics.build(tiny.SPEC, more=(SURE, CORNER), details=True)
    assert metrics.scalar_names(found) == [
        "miou", "pixel_accuracy", "mean_accuracy", "fwiou", "ece", "loss", "sure"
    ]  # fmt: skip


def test_two_scalars_with_the_same_name_are_refused():
    """One would replace the other in the log and in the file of scores."""
    found = metrics.build(tiny.SPEC, more=(LOUD,))
    with pytest.raises(
        InputError,
        match="config.eval.metrics: two metrics give a scalar 'loss': cross_entropy and Loud",
    ):
        metrics.scalar_names(found)
