"""The DeepLab v3 that comes with its weights, before and behind a CRF, on photographs.

    SEGJAX_WEIGHTS=DIR python -m experiments.records.crf.photographs --hardware="2 CPU cores"

It does what `python -m segjax.predict --config=deeplab_v3_mobilenet_voc --crf=deeplab_v1` does.
There is no truth for scikit-image's photographs: the parameters are the release's for VOC 2012.
Writes photographs.json, photographs.jpg and photographs.md beside this file, or into `--output`.
"""

import argparse
import pathlib

import cv2
import numpy as np

from experiments.shared import pages, photographs
from segjax import files, prediction
from segjax.configs import deeplab_v3_mobilenet_voc
from segjax.data.spec import DatasetSpec
from segjax.pictures import label_maps, layout

PRESET = "deeplab_v1"
WIDTH = 480  # of a photograph in the picture
COMMAND = "SEGJAX_WEIGHTS=DIR python -m experiments.records.crf.photographs --hardware=TEXT"


def main() -> None:
    """Labels the photographs and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    given = parser.parse_args()
    source = photographs.Photographs()
    net = prediction.pretrained(deeplab_v3_mobilenet_voc.get_config(), crf=PRESET)
    rows, pictures = {}, {}
    for found in net.labelled(source, source.sizes):
        i, before, after = found.index, found.before, found.label
        rows[i] = {
            "photograph": source.name(i),
            "before": photographs.class_pixels(before, net.spec.classes),
            "after": photographs.class_pixels(after, net.spec.classes),
            "changed": float(np.mean(before != after)),
        }
        pictures[i] = row(found.image, before, after, net.spec)
    sheet = layout.join([pictures[i] for i in sorted(pictures)], axis=0, gap=12)
    pages.write_jpeg(given.output / "photographs.jpg", sheet)
    result = pages.circumstances(COMMAND, given.hardware) | {
        "crf": net.protocol.to_json()["crf"],
        "rows": [rows[i] for i in sorted(rows)],
    }
    files.write_json(given.output / "photographs.json", result)
    pages.write(given.output / "photographs.md", page(result))


def row(image: np.ndarray, before: np.ndarray, after: np.ndarray, spec: DatasetSpec) -> np.ndarray:
    """One photograph, all at the same width."""
    size = (WIDTH, round(WIDTH * image.shape[0] / image.shape[1]))
    labels = [cv2.resize(x, size, interpolation=cv2.INTER_NEAREST_EXACT) for x in (before, after)]
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return label_maps.before_after(image, *labels, spec)


def page(result: dict) -> list[str]:
    """The paragraphs of the page."""
    rows = []
    for one in result["rows"]:
        shares = []
        for when in ("before", "after"):
            total = sum(one[when].values())
            shares.append(", ".join(f"{name} {n / total:.1%}" for name, n in one[when].items()))
        rows.append([one["photograph"], *shares, f"{one['changed']:.1%}"])
    crf = ", ".join(
        f"{key} {result['crf'][key]:g}"
        for key in ("w1", "theta_alpha", "theta_beta", "w2", "theta_gamma", "iterations")
    )
    return [
        "# A CRF behind DeepLab v3, on photographs",
        pages.block(COMMAND),
        f"{result['hardware']}; {result['date']}; {pages.software(result['versions'])}. "
        f"{pages.made(result, COMMAND)} DeepLab v3 on MobileNetV2, PASCAL VOC's 21 classes; "
        f"{result['crf']['name']}: {crf}. There is no truth: look at the edges.",
        pages.table(["photograph", "before", "after", "pixels that changed"], rows),
        "![before and after](photographs.jpg)",
    ]


if __name__ == "__main__":
    main()
