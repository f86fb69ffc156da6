"""Writes CamVid in the layout of the lecture whose recipe is configs/fcn8_lecture.py.

    python -m experiments.records.lecture_layout --camvid=DIR --output=DIR

`python -m segjax.main --config=fcn8_lecture:lecture --config.data.root=DIR` trains on the folder.

The folder holds `images_prepped_<split>/` and `annotations_prepped_<split>/` for train (367) and
test (233). Masks are RGB PNGs with the id in all three channels, 0 to 11. Without `--classes` 11,
CamVid's void, is a twelfth class, as it is in the lecture; with it, classes.txt names the eleven
classes and makes 11 void.
"""

import argparse
import pathlib
import shutil

import cv2
import numpy as np

from segjax.data import catalog, png, sources


def main() -> None:
    """Copies the images and converts the masks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--camvid", required=True, help="holds images/<split>/, labels/<split>/")
    parser.add_argument("--output", required=True, help="a new folder")
    parser.add_argument("--classes", action="store_true", help="write classes.txt: 11 is void")
    given = parser.parse_args()
    output = pathlib.Path(given.output)
    output.mkdir(parents=True)
    for split in ("train", "test"):
        pairs = sources.list_pairs(pathlib.Path(given.camvid), split)
        images, labels = (output / f"{k}_prepped_{split}" for k in ("images", "annotations"))
        images.mkdir()
        labels.mkdir()
        for image, label in pairs:
            shutil.copyfile(image, images / image.name)
            ids = png.decode_mask(sources.read_bytes(label), str(label))
            cv2.imwrite(str(labels / f"{label.stem}.png"), np.stack([ids] * 3, axis=-1))
        print(f"{len(pairs)} examples in {images} and {labels}.")
    if given.classes:
        spec = catalog.camvid(root=given.camvid).spec
        rows = [
            f"{i} {name} {r} {g} {b}"
            for i, (name, (r, g, b)) in enumerate(zip(spec.classes, spec.palette, strict=True))
        ]
        (output / "classes.txt").write_text("\n".join([*rows, f"{len(rows)} void 0 0 0"]) + "\n")


if __name__ == "__main__":
    main()
