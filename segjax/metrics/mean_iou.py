"""Mean IoU with its interval, and accuracies, from confusion matrices."""

from typing import Any

import jax
import numpy as np

from segjax.metrics import bootstrap, confusion
from segjax.metrics.metric import Counts, Metric, Pixels, by_class, number, percent


class MeanIoU(Metric):
    """The scores of Long et al. 2015, section 5; keeps the marginals of each image."""

    name = "mean_iou"
    by_image = True

    def count(self, pixels: Pixels) -> dict[str, jax.Array]:
        """`confusion` int32 [B, K, K], pixels by (truth, prediction) for each image."""
        classes = self.spec.num_classes
        by_image = jax.vmap(lambda p, t: confusion.count(p, t, classes))
        return {"confusion": by_image(pixels.prediction, pixels.label)}

    def keep(self, counts: Counts) -> Counts:
        """`marginals` int64 [n, 3, K], see `confusion.marginals`."""
        return {"marginals": confusion.marginals(np.asarray(counts["confusion"], np.int64))}

    def scores(self, total: Counts) -> dict[str, float]:
        """`miou`, `pixel_accuracy`, `mean_accuracy` and `fwiou`, 0 to 1."""
        return confusion.report(total["confusion"]).scalars()

    def describe(self, total: Counts, images: Counts) -> tuple[str, dict[str, Any]]:
        """The means in words; the interval and the scores of each class as fields."""
        report = confusion.report(total["confusion"])
        interval = bootstrap.miou(images["marginals"])
        summary = (
            f"mIoU {percent(report.miou)} ({percent(interval.low)} to {percent(interval.high)}) "
            f"over {report.classes_counted} classes, "
            f"pixel accuracy {percent(report.pixel_accuracy)}, "
            f"mean accuracy {percent(report.mean_accuracy)}, "
            f"frequency-weighted IoU {percent(report.fwiou)}"
        )
        return summary, {
            "miou_interval": {
                "level": bootstrap.LEVEL,
                "draws": bootstrap.DRAWS,
                "low": number(interval.low),
                "high": number(interval.high),
            },
            "classes_counted": report.classes_counted,
            "iou": by_class(report.iou, self.spec),
            "accuracy": by_class(report.accuracy, self.spec),
        }
