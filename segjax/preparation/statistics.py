"""Statistics of a split: sizes, raw ids, pixels and weights of its classes."""

import collections

from segjax.data import class_weights, scan
from segjax.data.spec import DatasetSpec


def of_scan(result: scan.Scan, spec: DatasetSpec, split: str) -> dict:
    """The statistics of a split, as plain data.

    The share of void is one of all pixels, that of a class one of the pixels with truth. The
    minimum and maximum are those of the raw ids. All counts are over the `sampled` examples.

    Args:
        result: of the split.
        spec: of the data set.
        split: its name.
    """
    weights = class_weights.median_frequency(result)
    sizes = collections.Counter(map(tuple, result.sizes.tolist())).most_common()
    labelled = int(result.pixels.sum())
    return {
        "dataset": spec.name,
        "split": split,
        "examples": len(result.sizes),
        "sampled": result.sampled,
        "fingerprint": result.fingerprint,
        "sizes": [{"height": h, "width": w, "examples": n} for (h, w), n in sizes],
        "raw_ids": {str(i): n for i, n in sorted(result.raw.items())},
        "minimum": min(result.raw),
        "maximum": max(result.raw),
        "num_classes": spec.num_classes,
        "void": {"pixels": result.void, "share": result.void / (labelled + result.void)},
        "classes": [
            {
                "name": name,
                "pixels": int(result.pixels[i]),
                "share": float(result.pixels[i] / max(labelled, 1)),
                "images": int(result.images[i]),
                "median_frequency_weight": round(float(weights[i]), 6),
            }
            for i, name in enumerate(spec.classes)
        ],
    }


def table(facts: dict) -> list[str]:
    """The statistics as lines for a terminal."""
    sizes = facts["sizes"]
    shown = ", ".join(f"{s['height']} x {s['width']} ({s['examples']})" for s in sizes[:3])
    ids = facts["raw_ids"]
    lines = [
        f"{facts['dataset']} {facts['split']}: {facts['examples']} examples, "
        f"{facts['sampled']} of them read; {facts['num_classes']} classes.",
        f"Sizes (height x width): {shown}{f' and {len(sizes) - 3} more' if sizes[3:] else ''}.",
        f"{len(ids)} raw ids from {facts['minimum']} to {facts['maximum']}: {', '.join(ids)}.",
        "",
    ]
    wide = max(len(c["name"]) for c in facts["classes"] + [{"name": "class"}])
    lines.append(f"{'class':<{wide}}  {'pixels':>14}  {'share':>8}  {'images':>7}  {'weight':>8}")
    for c in facts["classes"]:
        lines.append(
            f"{c['name']:<{wide}}  {c['pixels']:>14}  {c['share']:>8.3%}  {c['images']:>7}  "
            f"{c['median_frequency_weight']:>8.4f}" + ("" if c["pixels"] else "  absent")
        )
    void = facts["void"]
    return [*lines, f"{'void':<{wide}}  {void['pixels']:>14}  {void['share']:>8.3%} of all", ""]
