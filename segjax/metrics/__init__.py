"""The registry of metrics, and `build`, which makes the metrics of an evaluation.

A new metric takes a file and a line here; `config.eval.metrics` names a user's metrics.
"""

from collections.abc import Mapping, Sequence

from segjax import registry
from segjax.data.spec import DatasetSpec
from segjax.errors import InputError
from segjax.metrics.calibration import Calibration
from segjax.metrics.class_boundaries import ClassBoundaries
from segjax.metrics.cross_entropy import CrossEntropy
from segjax.metrics.mean_iou import MeanIoU

# Exported by name, for users. Not by __all__, which would take the modules from the API pages.
from segjax.metrics.metric import ImageMetric as ImageMetric
from segjax.metrics.metric import Metric as Metric

KEY = "config.eval.metrics"

METRICS: Mapping[str, type[Metric]] = {
    "mean_iou": MeanIoU,
    "calibration": Calibration,
    "cross_entropy": CrossEntropy,
    "boundaries": ClassBoundaries,
}
"""Name -> class, in the order of reports; every evaluation has the metrics of pixels."""


def build(
    spec: DatasetSpec,
    *,
    class_weights: tuple[float, ...] | None = None,
    more: Sequence[str | tuple[str, Mapping]] = (),
    details: bool = False,
) -> tuple[Metric, ...]:
    """The metrics of an evaluation.

    Args:
        spec: the classes.
        class_weights: class weights of the loss, for the cross-entropy.
        more: `config.eval.metrics`, additional to METRICS.
        details: whether to include metrics of whole images.

    Raises:
        InputError: if a name or option is unknown, or two metrics have the same name.
    """
    options = {"cross_entropy": {"class_weights": class_weights}}
    made = [cls(spec, **options.get(name, {})) for name, cls in METRICS.items()]
    made += [_build_entry(spec, entry) for entry in more]
    names = [metric.name for metric in made]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"{KEY}: two metrics are named {name!r}.")
    return tuple(m for m in made if details or not isinstance(m, ImageMetric))


def _build_entry(spec: DatasetSpec, entry: str | tuple[str, Mapping]) -> Metric:
    """The metric of an entry of `config.eval.metrics`."""
    name, options = (entry, {}) if isinstance(entry, str) else entry
    cls = registry.find(METRICS, name, KEY)
    if not (isinstance(cls, type) and issubclass(cls, Metric)):
        raise InputError(f"{KEY}: {name!r} is not a subclass of segjax.metrics.Metric.")
    metric = registry.bind(cls, options, KEY, name=name, positional=("spec",))(spec)
    return metric if metric.name else _named(metric, name.rpartition(":")[2])


def _named(metric: Metric, name: str) -> Metric:
    metric.name = name
    return metric


def scalar_names(metrics: Sequence[Metric]) -> list[str]:
    """The names of the scalars of pixel metrics, by which the best checkpoint can be chosen.

    Raises:
        InputError: if two metrics give a scalar of the same name.
    """
    owners: dict[str, str] = {}
    for metric in metrics:
        if isinstance(metric, ImageMetric):
            continue
        for name in metric.scores(metric.empty()):
            if name in owners:
                raise InputError(
                    f"{KEY}: two metrics give a scalar {name!r}: {owners[name]} and {metric.name}."
                )
            owners[name] = metric.name
    return list(owners)
