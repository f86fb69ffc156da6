"""The DeepLab v3 that comes with its weights, before and behind a CRF, on photographs.

    SEGJAX_WEIGHTS=DIR python -m experiments.records.crf.photographs --hardware="2 CPU cores"

What `python -m segjax.predict --config=configs/deeplab_v3_mobilenet_voc.py --crf=deeplab_v1` does.
There is no truth for scikit-image's photographs: the parameters are the release's for VOC 2012.
Writes photographs.json, photographs.jpg and photographs.md beside this file.
"""

import argparse
import datetime
import json
import pathlib

import cv2
import numpy as np
import skimage

from configs import deeplab_v3_mobilenet_voc
from experiments.records.voc_photographs.run import PHOTOS, counts
from segjax import files, predict
from segjax.evaluation import evaluator as evaluation
from segjax.pictures import label_maps, layout
from segjax.runs import run_folder

HERE = pathlib.Path(__file__).parent
PRESET = "deeplab_v1"
_WIDTH = 480  # of a photograph in the picture


def main() -> None:
    """Labels the photographs and writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    given = parser.parse_args()
    folder = pathlib.Path(skimage.__file__).parent / "data"
    images = predict.Images([folder / name for name in PHOTOS])
    sizes = np.array([images[i][1].shape for i in range(len(images))])
    config = deeplab_v3_mobilenet_voc.get_config()
    parts, ts, how = predict.pretrained(config, sizes, crf=PRESET)
    evaluator = evaluation.Evaluator(parts, images, sizes, how | {"limit": 0})
    rows, pictures = {}, {}
    for _, batch, out in evaluator.batches(ts.params, ts.batch_stats):
        before = evaluation.cut(batch, out["before"])
        for i, (image, _, after) in evaluation.examples(batch, out["prediction"]).items():
            rows[i] = {
                "photograph": PHOTOS[i],
                "before": counts(before[i], parts.spec.classes),
                "after": counts(after, parts.spec.classes),
                "changed": float(np.mean(before[i] != after)),
            }
            pictures[i] = row(image, before[i], after, parts.spec)
    sheet = layout.join([pictures[i] for i in sorted(pictures)], axis=0, gap=12)
    encoded = cv2.imencode(".jpg", sheet[..., ::-1], (cv2.IMWRITE_JPEG_QUALITY, 85))[1]
    files.write(HERE / "photographs.jpg", encoded.tobytes())
    result = {
        "hardware": given.hardware,
        "date": str(datetime.date.today()),
        "versions": run_folder.versions(),
        "crf": how["crf"],
        "rows": [rows[i] for i in sorted(rows)],
    }
    (HERE / "photographs.json").write_text(json.dumps(result, indent=2) + "\n")
    (HERE / "photographs.md").write_text(page(result))


def row(image: np.ndarray, before: np.ndarray, after: np.ndarray, spec) -> np.ndarray:
    """One photograph, all at the same width."""
    size = (_WIDTH, round(_WIDTH * image.shape[0] / image.shape[1]))
    labels = [cv2.resize(x, size, interpolation=cv2.INTER_NEAREST_EXACT) for x in (before, after)]
    image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return label_maps.before_after(image, *labels, spec)


def page(result: dict) -> str:
    """The page in Markdown."""
    software = ", ".join(f"{k} {v}" for k, v in result["versions"].items() if k != "devices")
    lines = ["| photograph | before | after | pixels that changed |", "|---|---|---|---|"]
    for one in result["rows"]:
        shares = []
        for when in ("before", "after"):
            total = sum(one[when].values())
            shares.append(", ".join(f"{name} {n / total:.1%}" for name, n in one[when].items()))
        lines.append(f"| {one['photograph']} | {' | '.join(shares)} | {one['changed']:.1%} |")
    crf = ", ".join(
        f"{key} {result['crf'][key]:g}"
        for key in ("w1", "theta_alpha", "theta_beta", "w2", "theta_gamma", "iterations")
    )
    parts = [
        "# A CRF behind DeepLab v3, on photographs",
        "```bash\nSEGJAX_WEIGHTS=DIR python -m experiments.records.crf.photographs --hardware=TEXT\n```",
        f"{result['hardware']}; {result['date']}; {software}. DeepLab v3 on MobileNetV2, PASCAL "
        f"VOC's 21 classes; {result['crf']['name']}: {crf}. No truth: see the edges.",
        "\n".join(lines),
        "![before and after](photographs.jpg)",
    ]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
