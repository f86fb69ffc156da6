"""Heat maps of an ImageNet classifier on scikit-image's photographs: maps, scores, a page.

    SEGJAX_WEIGHTS=DIR python -m experiments.records.fcn_heatmaps.run --hardware="2 CPU cores"

Long, Shelhamer, Darrell 2015, section 3.1, figure 2. The page compares the best classes of the
central 224 pixels with those of the whole photograph, and gives the share of the best class's map
that lies on the object. Writes heatmaps.json, heatmaps.jpg and README.md beside this file,
or into `--output`.
"""

import argparse
import pathlib
from typing import Any

import numpy as np

from experiments.shared import pages, photographs
from segjax import files, heatmaps
from segjax.configs import imagenet_heatmap
from segjax.data import sources
from segjax.photographs.heatmaps import best_picture
from segjax.pictures import layout

# Photograph: the object's box (top, left, bottom, right) by hand, in parts of the whole.
PHOTOS = {
    "coffee.png": (0.02, 0.12, 0.98, 0.83),
    "chelsea.png": (0.00, 0.05, 1.00, 0.82),
    "rocket.jpg": (0.25, 0.44, 0.98, 0.56),
}
SHORT, CROP = 256, 224
COMMAND = 'SEGJAX_WEIGHTS=DIR python -m experiments.records.fcn_heatmaps.run --hardware="..."'
HEAD = (
    "photograph",
    "central 224 of a short side of 256",
    "whole photograph",
    "object's box",
    "best map in it",
    "density in / out",
)


def main() -> None:
    """Runs the three photographs and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--output", type=pathlib.Path, default=pathlib.Path(__file__).parent)
    given = parser.parse_args()
    classifier = heatmaps.Maps(imagenet_heatmap.get_config())
    rows, pictures = [], []
    for name, box in PHOTOS.items():
        image = sources.read_image(photographs.folder() / name)
        photo = heatmaps.to_short_side(image, SHORT)
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
        pictures.append(best_picture(photo, whole, classifier.names))
    pages.write_jpeg(given.output / "heatmaps.jpg", layout.join(pictures, axis=0, gap=16))
    result = pages.circumstances(COMMAND, given.hardware) | {"rows": rows}
    files.write_json(given.output / "heatmaps.json", result)
    pages.write(given.output / "README.md", page(result))


def best(maps: dict[str, np.ndarray], names: list[str]) -> list[tuple[str, float]]:
    """The three most probable classes."""
    return [(names[i], round(float(maps["probability"][i]), 3)) for i in maps["best"][:3]]


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


def page(result: dict[str, Any]) -> list[str]:
    """The paragraphs of the page."""

    def told(classes: list) -> str:
        return ", ".join(f"{name.split(',')[0]} {p:.2f}" for name, p in classes)

    rows = [
        [
            row["photograph"],
            told(row["centre"]),
            told(row["whole"]),
            f"{100 * row['box_share']:.0f} %",
            f"{100 * row['map_share']:.0f} %",
            str(row["density"]),
        ]
        for row in result["rows"]
    ]
    return [
        "# A classifier, fully convolutionally",
        pages.block(COMMAND),
        f"{result['hardware']}; {result['date']}; {pages.software(result['versions'])}; BVLC "
        "GoogLeNet, half-precision file; photographs of scikit-image. "
        f"{pages.made(result, COMMAND)}",
        "A photograph of yours: `SEGJAX_WEIGHTS=DIR python -m segjax.predict "
        "--config=imagenet_heatmap --save=heatmaps --input=photo.jpg --output=out`.",
        pages.table(HEAD, rows),
        "The box is the object's, by hand. The map is the softmax at each place of the class that "
        "is best for the whole photograph.",
        "![maps of the best classes](heatmaps.jpg)",
    ]


if __name__ == "__main__":
    main()
