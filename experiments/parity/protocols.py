"""Evaluation protocols against the code that published numbers were made with, run as it is.

    python -m experiments.parity.protocols --semseg=DIR --hardware="2 CPU cores"
    python -m experiments.parity.protocols --deeplab=DIR

semseg (github.com/hszhao/semseg): all of `tool/test.py`'s `test` with its PSPNet, narrowed and
drawn at random, and its `scale_process` around a random network. DeepLab (github.com/tensorflow/
models, research/deeplab): `predict_labels_multi_scale` around that random network; it needs
tensorflow, in an environment of its own. Each writes its fixture,
tests/fixtures/protocols/*.npz; the first also experiments/parity/protocols.md, from both.
"""

import argparse
import contextlib
import importlib.util
import json
import sys
import tempfile
import types
from unittest import mock

import numpy as np

from experiments.parity.protocol_cases import (
    DEEPLAB_SIZES,
    EVERY,
    FIXTURES,
    SCALES,
    SEMSEG,
    STRIDE,
    WHOLE_SIZES,
    K,
    draw_image,
    kernel,
)


def main() -> None:
    """Runs the checkouts that are named."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--semseg", default="", help="a checkout")
    parser.add_argument("--deeplab", default="", help="research/deeplab of the release")
    parser.add_argument("--hardware", default="", help="for the page")
    given = parser.parse_args()
    FIXTURES.mkdir(parents=True, exist_ok=True)
    if given.deeplab:
        write("deeplab", deeplab(given.deeplab))
    if given.semseg:
        write("semseg", semseg(given.semseg))
        # jax is not there where tensorflow is, in the environment of the other fixture.
        from experiments.parity import protocol_errors

        protocol_errors.write(given.semseg, given.hardware)


def write(name: str, found: dict) -> None:
    """Writes a fixture: every third pixel of maps, which shares no factor with the strides."""
    kept = {k: v[::EVERY, ::EVERY] if getattr(v, "ndim", 0) else v for k, v in found.items()}
    np.savez_compressed(FIXTURES / f"{name}.npz", **kept)


def semseg(checkout: str) -> dict[str, np.ndarray]:
    """Fused probabilities, float32 [H, W, K], by size, and the recipes of the network's weights."""
    import torch

    from experiments.parity import nets, upstream

    oracle = upstream.semseg({"semseg": checkout}, "pspnet50", nets.DIVISOR, K)
    oracle.module.load_state_dict(
        {n: torch.from_numpy(np.array(w)) for n, w in oracle.weights.items()}
    )
    oracle.module.eval()
    tool = load("semseg_test", f"{checkout}/tool/test.py")
    tool.logger = mock.Mock()
    recorder = Recorder()
    found = {"recipes": json.dumps({n: list(r) for n, r in oracle.recipes.items()})}
    mean = [0.485 * 255, 0.456 * 255, 0.406 * 255]
    std = [0.229 * 255, 0.224 * 255, 0.225 * 255]
    with (
        mock.patch.object(torch.Tensor, "cuda", lambda x, *_, **__: x),
        mock.patch.object(tool, "np", recorder),
        mock.patch.object(tool, "colorize"),  # draws its picture, by a call that PIL no longer has
        tempfile.TemporaryDirectory() as folder,
    ):
        for size in SEMSEG["sizes"]:
            image = torch.from_numpy(draw_image(size).astype(np.float32)).permute(2, 0, 1)[None]
            tool.test(
                [(image, None)], [("image.jpg", "")], oracle.module, K, mean, std,
                SEMSEG["base_size"], *SEMSEG["crop"], SCALES, folder, folder,
                np.zeros((256, 3), np.uint8),
            )  # fmt: skip
            found["{}x{}".format(*size)] = recorder.scores.astype(np.float32)
        return found | semseg_whole(tool)


def semseg_whole(tool) -> dict[str, np.ndarray]:
    """The same tool on whole images, around the random network, as the window grows with them."""
    import torch

    weight = torch.from_numpy(kernel()).permute(3, 2, 0, 1)

    def model(x):
        return 4 * torch.tanh(torch.nn.functional.conv2d(x, weight, stride=STRIDE, padding=4))

    found = {}
    for size in WHOLE_SIZES:
        image, total = draw_image(size).astype(np.float32), 0
        for scale in SCALES:
            long = round(scale * max(size))
            wanted = [long if n == max(size) else round(long / max(size) * n) for n in size]
            scaled = tool.cv2.resize(image, wanted[::-1], interpolation=tool.cv2.INTER_LINEAR)
            total = total + tool.scale_process(model, scaled, K, *wanted, *size, [110.0] * 3)
        found["whole {}x{}".format(*size)] = (total / len(SCALES)).astype(np.float32)
    return found


class Recorder:
    """numpy, but the argument of `argmax` is kept."""

    def __getattr__(self, name: str):
        return getattr(np, name)

    def argmax(self, scores: np.ndarray, axis: int) -> np.ndarray:
        """As numpy's."""
        self.scores = np.array(scores)
        return np.argmax(scores, axis=axis)


def deeplab(folder: str) -> dict[str, np.ndarray]:
    """Fused probabilities, float32 [H, W, K], by size."""
    import tensorflow.compat.v1 as tf

    tf.disable_eager_execution()
    model = deeplab_model(folder, tf)

    def logits(images, *_, **__):
        padded = tf.pad(images - 110, [[0, 0], [4, 4], [4, 4], [0, 0]])
        return {"semantic": 4 * tf.tanh(tf.nn.conv2d(padded, kernel(), STRIDE, "VALID"))}

    found, caught = {}, []

    def argmax(scores, _):
        caught.append(scores)

    for size in DEEPLAB_SIZES:
        caught.clear()
        with (
            tf.Graph().as_default(),
            mock.patch.object(model, "_get_logits", logits),
            mock.patch.object(tf, "argmax", argmax),
            tf.Session() as session,
        ):
            images = tf.constant(draw_image(size)[None].astype(np.float32))
            # Its last line sets an item of a tensor; everything is computed by then.
            with contextlib.suppress(TypeError):
                model.predict_labels_multi_scale(
                    images, Options(size), eval_scales=SCALES, add_flipped_images=True
                )
            found["{}x{}".format(*size)] = session.run(caught[0])[0]
    return found


class Options(types.SimpleNamespace):
    """The options that the release's evaluation reads."""

    def __init__(self, size: tuple[int, int]):
        super().__init__(
            outputs_to_num_classes={"semantic": K},
            crop_size=list(size),
            image_pooling_crop_size=None,
            add_image_level_feature=False,
            decoder_output_stride=None,
            output_stride=STRIDE,
            merge_method="max",
        )

    def _replace(self, **_):
        return self  # only the network would read the change


def deeplab_model(folder: str, tf):
    """The release's model.py; only `core/utils.py` of its imports is used."""
    framework = types.SimpleNamespace(nest=None)
    stubs = {"tensorflow": tf}
    for name in ("tensorflow.contrib", "deeplab", "deeplab.core"):
        stubs[name] = types.ModuleType(name)
    stubs["tensorflow.contrib"].slim = mock.MagicMock()
    stubs["tensorflow.contrib"].framework = framework
    for name in ("dense_prediction_cell", "feature_extractor", "utils"):
        setattr(stubs["deeplab.core"], name, mock.MagicMock())
    with mock.patch.dict(sys.modules, stubs):
        stubs["deeplab.core"].utils = load("deeplab_utils", f"{folder}/core/utils.py")
        return load("deeplab_model", f"{folder}/model.py")


def load(name: str, path: str):
    """The module in a file."""
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
