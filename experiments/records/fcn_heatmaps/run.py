"""GoogLeNet as a classifier and fully convolutionally on scikit-image's photographs.

    SEGJAX_WEIGHTS=DIR python -m experiments.records.fcn_heatmaps.run --hardware="2 CPU cores"

Long, Shelhamer, Darrell 2015, section 3.1, figure 2. Writes heatmaps.{json,md,jpg} beside this
file: what the classifier says of the central 224 pixels, what it says of the whole photograph, and
how much of the best class's map lies on the object.
"""

import argparse
import datetime
import json
import pathlib
from typing import Any

import cv2
import numpy as np
import skimage

from configs import imagenet_heatmap
from segjax import files, heatmaps
from segjax.data import sources
from segjax.pictures import layout
from segjax.runs import run_folder

# Photograph: the object's box (top, left, bottom, right) by hand, in parts of the whole.
PHOTOS = {
    "coffee.png": (0.02, 0.12, 0.98, 0.83),
    "chelsea.png": (0.00, 0.05, 1.00, 0.82),
    "rocket.jpg": (0.25, 0.44, 0.98, 0.56),
}
SHORT, CROP = 256, 224


def main() -> None:
    """Runs the three photographs and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    given = parser.parse_args()
    classifier = heatmaps.Maps(imagenet_heatmap.get_config())
    folder = pathlib.Path(skimage.__file__).parent / "data"
    rows, pictures = [], []
    for name, box in PHOTOS.items():
        photo = heatmaps.to_short_side(sources.read_image(folder / name), SHORT)
        top, left = ((n - CROP) // 2 for n in photo.shape[:2])
        centre = classifier(photo[top : top + CROP, left : left + CROP])
        whole = classifier(photo)
        rows.append(
            {
                "photograph": name,
                "centre": best(centre, classifier.names),
                "whole": best(whole, classifier.names),
                **on_object(whole["best_maps"][..., 0], box),
            }
        )
        pictures.append(heatmaps.best_picture(photo, whole, classifier.names))
    here = pathlib.Path(__file__).parent
    sheet = layout.join(pictures, axis=0, gap=16)
    encoded = cv2.imencode(".jpg", sheet[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 85))[1]
    files.write(here / "heatmaps.jpg", encoded.tobytes())
    result = {
        "hardware": given.hardware,
        "date": str(datetime.date.today()),
        "versions": run_folder.versions(),
        "rows": rows,
    }
    (here / "heatmaps.json").write_text(json.dumps(result, indent=2) + "\n")
    (here / "heatmaps.md").write_text(page(result))


def best(found: dict[str, np.ndarray], names: list[str]) -> list[tuple[str, float]]:
    """The three most probable classes."""
    return [(names[i], round(float(found["probability"][i]), 3)) for i in found["best"][:3]]


def on_object(heat: np.ndarray, box: tuple[float, ...]) -> dict[str, float]:
    """The box's share of the photograph and of the map; mean of the map inside over outside."""
    height, width = heat.shape
    top, left, bottom, right = (
        round(part * n) for part, n in zip(box, (height, width) * 2, strict=True)
    )
    inside = np.zeros(heat.shape, bool)
    inside[top:bottom, left:right] = True
    return {
        "box_share": round(float(inside.mean()), 3),
        "map_share": round(float(heat[inside].sum() / heat.sum()), 3),
        "density": round(float(heat[inside].mean() / heat[~inside].mean()), 1),
    }


def page(result: dict[str, Any]) -> str:
    """The page in Markdown."""

    def told(classes):
        return ", ".join(f"{name.split(',')[0]} {p:.2f}" for name, p in classes)

    versions = ", ".join(f"{k} {v}" for k, v in result["versions"].items() if k != "devices")
    lines = [
        "| photograph | central 224 of a short side of 256 | whole photograph | object's box | "
        "best map in it | density in / out |",
        "|" + "---|" * 6,
    ]
    for row in result["rows"]:
        lines.append(
            f"| {row['photograph']} | {told(row['centre'])} | {told(row['whole'])} "
            f"| {100 * row['box_share']:.0f} % | {100 * row['map_share']:.0f} % "
            f"| {row['density']} |"
        )
    parts = [
        "# A classifier, fully convolutionally",
        '```bash\nSEGJAX_WEIGHTS=DIR python -m experiments.records.fcn_heatmaps.run --hardware="..."\n```',
        f"{result['hardware']}; {result['date']}; {versions}; BVLC GoogLeNet, half-precision "
        "file; photographs of scikit-image.",
        "\n".join(lines),
        "The box is the object's, by hand; the map is the softmax at each place of the class "
        "that is best for the whole photograph.",
        "![maps of the best classes](heatmaps.jpg)",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
