"""The DeepLab v3 that comes with its weights, on scikit-image's photographs.

    SEGJAX_WEIGHTS=DIR python -m experiments.records.voc_photographs.run --hardware="2 CPU cores"

It does what `python -m segjax.predict --config=deeplab_v3_mobilenet_voc` does. Writes
photographs.json, photographs.jpg and README.md beside this file, or into `--output`.
"""

import argparse
import pathlib

import cv2
import numpy as np

from experiments.shared import pages, photographs
from segjax import files, prediction
from segjax.configs import deeplab_v3_mobilenet_voc
from segjax.pictures import label_maps, layout

WIDTH = 480  # of a photograph in the picture
COMMAND = "SEGJAX_WEIGHTS=DIR python -m experiments.records.voc_photographs.run --hardware=TEXT"


def main() -> None:
    """Labels the photographs and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    given = parser.parse_args()
    source = photographs.Photographs()
    net = prediction.pretrained(deeplab_v3_mobilenet_voc.get_config())
    rows, pictures = {}, {}
    for found in net.labelled(source, source.sizes):
        pixels = photographs.class_pixels(found.label, net.spec.classes)
        rows[found.index] = {"photograph": source.name(found.index), "pixels": pixels}
        overlay = label_maps.overlay(found.image, found.label, net.spec)
        size = (WIDTH, round(WIDTH * overlay.shape[0] / overlay.shape[1]))
        pictures[found.index] = cv2.resize(overlay, size, interpolation=cv2.INTER_AREA)
    pages.write_jpeg(given.output / "photographs.jpg", sheet([pictures[i] for i in sorted(rows)]))
    result = pages.circumstances(COMMAND, given.hardware) | {
        "rows": [rows[i] for i in sorted(rows)]
    }
    files.write_json(given.output / "photographs.json", result)
    pages.write(given.output / "README.md", page(result))


def sheet(pictures: list[np.ndarray]) -> np.ndarray:
    """Four pictures, two a row."""
    rows = [layout.join(pictures[i : i + 2], axis=1, gap=12) for i in (0, 2)]
    return layout.join(rows, axis=0, gap=12)


def page(result: dict) -> list[str]:
    """The paragraphs of the page."""
    rows = []
    for row in result["rows"]:
        total = sum(row["pixels"].values())
        shares = [f"{name} {n} ({n / total:.1%})" for name, n in row["pixels"].items()]
        rows.append([row["photograph"], ", ".join(shares)])
    return [
        "# A working model without training",
        pages.block(COMMAND),
        f"{result['hardware']}; {result['date']}; {pages.software(result['versions'])}. "
        f"{pages.made(result, COMMAND)} DeepLab v3 on MobileNetV2, PASCAL VOC's 21 classes, "
        "weights of an 8-bit network; photographs of scikit-image at their size.",
        pages.table(["photograph", "pixels"], rows),
        "![the photographs, labelled](photographs.jpg)",
    ]


if __name__ == "__main__":
    main()
