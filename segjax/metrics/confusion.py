"""The confusion matrix and the scores computed from it (Long et al. 2015, section 5)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np


def count(pred: jax.Array, label: jax.Array, num_classes: int) -> jax.Array:
    """The confusion matrix: pixels by (truth, prediction).

    Args:
        pred: uint8 [...], classes.
        label: uint8 [...], classes; pixels at or above `num_classes`, such as VOID, do not count.
        num_classes: K.

    Returns:
        int32 [K, K]; sum batches in int64 on the host.
    """
    truth = label.astype(jnp.int32)  # uint8 would wrap in the product
    index = jnp.where(truth < num_classes, truth * num_classes + pred, num_classes**2)
    counts = jnp.zeros((num_classes**2 + 1,), jnp.int32).at[index.ravel()].add(1)
    return counts[:-1].reshape(num_classes, num_classes)


def marginals(confusion: np.ndarray) -> np.ndarray:
    """Correct, true and predicted pixels of each class: [..., K, K] -> [..., 3, K].

    They suffice for IoU and, unlike whole matrices, are small enough to keep for every image.
    """
    right = np.diagonal(confusion, axis1=-2, axis2=-1)
    return np.stack([right, confusion.sum(-1), confusion.sum(-2)], axis=-2)


def iou(marginals: np.ndarray) -> np.ndarray:
    """IoU of each class: [..., 3, K] -> float64 [..., K]; nan for an absent class."""
    right, truth, predicted = np.moveaxis(np.asarray(marginals), -2, 0)
    return _ratio(right, truth + predicted - right)


def miou(marginals: np.ndarray) -> np.ndarray:
    """Mean IoU over the classes in truth or prediction: [..., 3, K] -> float64 [...], or nan."""
    by_class = iou(marginals)
    present = ~np.isnan(by_class)
    return _ratio(np.where(present, by_class, 0).sum(-1), present.sum(-1))


@dataclasses.dataclass(frozen=True)
class Report:
    """The scores of a data set, from one confusion matrix.

    Attributes:
        confusion: int64 [K, K], pixels by (truth, prediction).
        pixel_accuracy, mean_accuracy, miou, fwiou: 0 to 1; nan if no pixel was counted. Mean
            accuracy averages over the classes in the truth, miou over the classes in truth or
            prediction; fwiou weights each class by its share of the truth.
        iou, accuracy: float64 [K]; nan for an absent class.
        classes_counted: number of classes over which miou averages.
    """

    confusion: np.ndarray
    pixel_accuracy: float
    mean_accuracy: float
    miou: float
    fwiou: float
    iou: np.ndarray
    accuracy: np.ndarray
    classes_counted: int

    def scalars(self) -> dict[str, float]:
        """The mean scores by their short names, for logs."""
        return {
            "miou": self.miou,
            "pixel_accuracy": self.pixel_accuracy,
            "mean_accuracy": self.mean_accuracy,
            "fwiou": self.fwiou,
        }


def report(confusion: np.ndarray) -> Report:
    """The scores of a confusion matrix, int64 [K, K]."""
    confusion = np.asarray(confusion, np.int64)
    right, truth, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    union = truth + predicted - right
    iou, accuracy = _ratio(right, union), _ratio(right, truth)
    all_pixels = confusion.sum()
    return Report(
        confusion=confusion,
        pixel_accuracy=float(_ratio(right.sum(), all_pixels)),
        mean_accuracy=_mean(accuracy),
        miou=_mean(iou),
        fwiou=float(np.nansum(iou * _ratio(truth, all_pixels))) if all_pixels else float("nan"),
        iou=iou,
        accuracy=accuracy,
        classes_counted=int(np.sum(union > 0)),
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.where(whole > 0, part / np.maximum(whole, 1), np.nan)


def _mean(values: np.ndarray) -> float:
    present = values[~np.isnan(values)]
    return float(present.mean()) if present.size else float("nan")
