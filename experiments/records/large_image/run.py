"""A 10,000 x 10,000 image through `segjax.predict`: time, and the most memory that it took.

    python -m experiments.records.large_image.run --hardware="2 CPU cores" [--side=10000] [--workdir=DIR]

The image is a street scene drawn large. Without --workdir the network is the VOC DeepLab v3 of
`configs/deeplab_v3_mobilenet_voc.py`, whose weights $SEGJAX_WEIGHTS holds. Writes
experiments/large_image.{json,md,jpg}.
"""

import argparse
import datetime
import json
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import cv2
import numpy as np

from segjax import files
from segjax.data import catalog
from segjax.runs import run_folder

FOLDER = pathlib.Path(__file__).parent
RECIPE = "configs/deeplab_v3_mobilenet_voc.py"
PROTOCOL = "single, tile=(513, 513), blend='smooth'"


def main() -> None:
    """Draws the image, labels it in a process of its own, writes the page."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--hardware", required=True, help="for the page")
    parser.add_argument("--side", type=int, default=10_000)
    parser.add_argument("--workdir", default="", help="a run, in place of the VOC network")
    parser.add_argument("--protocol", default=PROTOCOL)
    given = parser.parse_args()
    network = f"--workdir={given.workdir}" if given.workdir else f"--config={RECIPE}"
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "large.jpg")
        cv2.imwrite(str(path), draw(given.side))
        command = [
            sys.executable, "-m", "segjax.predict", network, f"--input={path}",
            f"--output={folder}/out", f"--protocol={given.protocol}",
        ]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
        label = cv2.imread(f"{folder}/out/large.png", cv2.IMREAD_UNCHANGED)
        overlay = cv2.imread(f"{folder}/out/large_overlay.png")
    small = cv2.resize(overlay, (1000, round(1000 * overlay.shape[0] / overlay.shape[1])))
    encoded = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 75])[1]
    files.write(FOLDER / "large_image.jpg", encoded.tobytes())
    result = {
        "command": f'python -m segjax.predict {network} --protocol="{given.protocol}"',
        "date": datetime.date.today().isoformat(),
        "hardware": given.hardware,
        "versions": run_folder.versions(),
        "size": list(label.shape[:2]),
        "seconds": round(seconds, 1),
        "peak_gib": round(peak, 2),
    }
    (FOLDER / "large_image.json").write_text(json.dumps(result, indent=2) + "\n")
    (FOLDER / "large_image.md").write_text(page(result))
    print(page(result))


def draw(side: int) -> np.ndarray:
    """uint8 [side, side, 3], BGR: scenes side by side, each as large as the set draws them well."""
    source = catalog.load("scenes", size=(480, 640)).splits["val"]
    canvas = np.zeros((-(-side // 480) * 480, -(-side // 640) * 640, 3), np.uint8)
    places = [(y, x) for y in range(0, side, 480) for x in range(0, side, 640)]
    for i, (y, x) in enumerate(places):
        canvas[y : y + 480, x : x + 640] = source[i % 40][0][..., ::-1]
    return canvas[:side, :side]


def page(result: dict) -> str:
    """The page in Markdown."""
    software = ", ".join(f"{k} {v}" for k, v in result["versions"].items() if "device" not in k)
    return (
        "# An image of {} x {}\n\n".format(*result["size"])
        + f"```bash\n{result['command']} --input=large.jpg --output=out\n```\n\n"
        f"{result['hardware']}; {result['date']}; {software}.\n\n"
        f"Labelled in {result['seconds'] / 60:.1f} minutes, reading, writing and compiling "
        f"included; the process took at most **{result['peak_gib']:.2f} GiB**.\n\n"
        "![the labels over the image](large_image.jpg)\n"
    )


if __name__ == "__main__":
    main()
