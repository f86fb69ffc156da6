"""The DeepLab v3 that comes with its weights, on scikit-image's photographs.

    SEGJAX_WEIGHTS=DIR python -m experiments.records.voc_photographs.run --hardware="2 CPU cores"

What `python -m segjax.predict --config=configs/deeplab_v3_mobilenet_voc.py` does. Writes
photographs.json, README.md and photographs.jpg beside this file.
"""

import argparse
import datetime
import json
import pathlib
import tempfile

import cv2
import numpy as np
import skimage

from configs import deeplab_v3_mobilenet_voc
from segjax import files, predict
from segjax.data import png, sources
from segjax.pictures import layout
from segjax.runs import run_folder

_WIDTH = 480  # of a photograph in the picture
PHOTOS = ("chelsea.png", "astronaut.png", "coffee.png", "rocket.jpg")


def main() -> None:
    """Labels the photographs and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    given = parser.parse_args()
    folder = pathlib.Path(skimage.__file__).parent / "data"
    images = predict.Images([folder / name for name in PHOTOS])
    sizes = np.array([images[i][1].shape for i in range(len(images))])
    parts, ts, how = predict.pretrained(deeplab_v3_mobilenet_voc.get_config(), sizes)
    rows, pictures = [], []
    with tempfile.TemporaryDirectory() as output:
        predict.write_labels(parts, ts, how, images, sizes, pathlib.Path(output))
        for i, name in enumerate(PHOTOS):
            stem = pathlib.Path(output, images.name(i))
            label = png.decode_mask(stem.with_suffix(".png").read_bytes(), name)
            rows.append({"photograph": name, "pixels": counts(label, parts.spec.classes)})
            overlay = sources.read_image(stem.with_name(f"{images.name(i)}_overlay.png"))
            height = round(_WIDTH * overlay.shape[0] / overlay.shape[1])
            pictures.append(cv2.resize(overlay, (_WIDTH, height), interpolation=cv2.INTER_AREA))
    here = pathlib.Path(__file__).parent
    encoded = cv2.imencode(".jpg", _sheet(pictures)[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 85))[1]
    files.write(here / "photographs.jpg", encoded.tobytes())
    result = {
        "hardware": given.hardware,
        "date": str(datetime.date.today()),
        "versions": run_folder.versions(),
        "rows": rows,
    }
    (here / "photographs.json").write_text(json.dumps(result, indent=2) + "\n")
    (here / "README.md").write_text(page(result))


def counts(label: np.ndarray, classes: tuple[str, ...]) -> dict[str, int]:
    """Class -> pixels, the most first."""
    found = sorted(zip(*np.unique(label, return_counts=True), strict=True), key=lambda x: -x[1])
    return {classes[i]: int(count) for i, count in found}


def _sheet(pictures: list[np.ndarray]) -> np.ndarray:
    rows = [layout.join(pictures[i : i + 2], axis=1, gap=12) for i in (0, 2)]
    return layout.join(rows, axis=0, gap=12)


def page(result: dict) -> str:
    """The page in Markdown."""
    software = ", ".join(f"{k} {v}" for k, v in result["versions"].items() if k != "devices")
    lines = ["| photograph | pixels |", "|---|---|"]
    for row in result["rows"]:
        total = sum(row["pixels"].values())
        parts = [f"{name} {n} ({n / total:.1%})" for name, n in row["pixels"].items()]
        lines.append(f"| {row['photograph']} | {', '.join(parts)} |")
    parts = [
        "# A working model without training",
        "```bash\nSEGJAX_WEIGHTS=DIR python -m experiments.records.voc_photographs.run --hardware=TEXT\n```",
        f"{result['hardware']}; {result['date']}; {software}. DeepLab v3 on MobileNetV2, PASCAL "
        "VOC's 21 classes, weights of an 8-bit network; photographs of scikit-image at their size.",
        "\n".join(lines),
        "![the photographs, labelled](photographs.jpg)",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
