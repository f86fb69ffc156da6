"""An image of 10,000 x 10,000 through `segjax.predict`: the time, and the most memory in use.

    SEGJAX_WEIGHTS=DIR python -m experiments.records.large_image.run --hardware="2 CPU cores"

The image is a street scene drawn large; `--side` changes its size, `--workdir` takes a run's
network in place of the VOC DeepLab v3 of configs/deeplab_v3_mobilenet_voc.py. Writes
large_image.json, large_image.jpg and README.md beside this file, or into `--output`.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import cv2
import numpy as np

from experiments.shared import pages
from segjax import files
from segjax.data import catalog

FOLDER = pathlib.Path(__file__).parent
RECIPE = "deeplab_v3_mobilenet_voc"
COMMAND = 'SEGJAX_WEIGHTS=DIR python -m experiments.records.large_image.run --hardware="..."'
PROTOCOL = "single, tile=(513, 513), blend='smooth'"


def main() -> None:
    """Draws the image, labels it in another process, writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--workdir", default="", help="a run, in place of the VOC network")
    parser.add_argument("--protocol", default=PROTOCOL)
    parser.add_argument("--output", type=pathlib.Path, default=FOLDER)
    given = parser.parse_args()
    network = f"--workdir={given.workdir}" if given.workdir else f"--config={RECIPE}"
    with tempfile.TemporaryDirectory() as scratch:
        path = pathlib.Path(scratch, "large.jpg")
        cv2.imwrite(str(path), draw(given.side))
        command = [
            sys.executable, "-m", "segjax.predict", network, f"--input={path}",
            f"--output={scratch}/out", f"--protocol={given.protocol}",
        ]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, check=True, cwd=pages.ROOT)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        label = cv2.imread(f"{scratch}/out/large.png", cv2.IMREAD_UNCHANGED)
        overlay = cv2.imread(f"{scratch}/out/large_overlay.png")[..., ::-1]
    small = cv2.resize(overlay, (1000, round(1000 * overlay.shape[0] / overlay.shape[1])))
    pages.write_jpeg(given.output / "large_image.jpg", small, quality=75)
    result = pages.circumstances(COMMAND, given.hardware) | {
        "predict": f'python -m segjax.predict {network} --protocol="{given.protocol}"',
        "size": list(label.shape[:2]),
        "seconds": round(seconds, 1),
        "peak_gib": round(peak, 2),
    }
    files.write_json(given.output / "large_image.json", result)
    pages.write(given.output / "README.md", page(result))


def draw(side: int) -> np.ndarray:
    """Scenes side by side, each as large as the set draws them well: uint8 [side, side, 3], BGR."""
    source = catalog.load("scenes", size=(480, 640)).splits["val"]
    canvas = np.zeros((-(-side // 480) * 480, -(-side // 640) * 640, 3), np.uint8)
    places = [(y, x) for y in range(0, side, 480) for x in range(0, side, 640)]
    for i, (y, x) in enumerate(places):
        canvas[y : y + 480, x : x + 640] = source[i % 40][0][..., ::-1]
    return canvas[:side, :side]


def page(result: dict) -> list[str]:
    """The paragraphs of the page."""
    predict = result.get(
        "predict", f'python -m segjax.predict --config={RECIPE} --protocol="{PROTOCOL}"'
    )
    software = pages.software(result["versions"], device=False)
    return [
        "# An image of {} x {}".format(*result["size"]),
        pages.block(COMMAND),
        f"It draws the image and measures `{predict} --input=large.jpg --output=out`.",
        f"{result['hardware']}; {result['date']}; {software}. {pages.made(result, COMMAND)}",
        f"Labelled in {result['seconds'] / 60:.1f} minutes, reading, writing and compiling "
        f"included; the process took at most **{result['peak_gib']:.2f} GiB**.",
        "![the labels over the image](large_image.jpg)",
    ]


if __name__ == "__main__":
    main()
