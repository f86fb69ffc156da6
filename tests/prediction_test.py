"""Networks that label photographs: the same numbers as predict and evaluate."""

import json
import os
import pathlib
import subprocess
import sys

import cv2
import jax
import numpy as np
import pytest

import segjax
from segjax import prediction
from segjax.data import catalog, png
from segjax.errors import InputError
from segjax.evaluation import kept, kept_labels, report
from segjax.evaluation.evaluator import Evaluator
from segjax.models.importers import weight_files
from segjax.photographs import labels as label_files
from segjax.training import optim
from tests import programs, tiny
from tests.evaluation import made

CRF = "deeplab_v1, w1=6.0, theta_alpha=9.0, theta_beta=12.0, iterations=4"
VIEWS = {
    "the run's own": {},
    "views": {"protocol": "single, scales=(0.75, 1.0), flip=True"},
    "windows": {"protocol": "single, tile=(40, 48), softmax='before_resize'"},
    "a CRF": {"crf": CRF},
}

EVERY_VIEW = pytest.mark.parametrize(
    "text",
    [
        pytest.param(text, id=name, marks=[pytest.mark.slow] if name == "a CRF" else [])
        for name, text in VIEWS.items()
    ],
)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> pathlib.Path:
    """A short run whose weights do something."""
    path = tmp_path_factory.mktemp("prediction") / "run"
    changes = {"total_steps": 4, "optim__lr": 0.2, "eval__limit": 4, "best__keep": 1}
    programs.train_plainly(programs.config(**changes), path)
    return path


class Photographs:
    """Images of many sizes, and a name for each."""

    def __init__(self, sizes):
        rng = np.random.default_rng(0)
        self.images = [
            cv2.resize(rng.integers(0, 256, (5, 6, 3), np.uint8), size[::-1]).reshape(*size, 3)
            for size in sizes
        ]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        image = self.images[index]
        return image, np.full(image.shape[:2], tiny.VOID, np.uint8)

    def name(self, index):
        return f"photo {index}"


SIZES = ((48, 64), (33, 47), (1, 91), (64, 48), (100, 30))


@EVERY_VIEW
def test_labels_of_arrays_are_those_of_predicts_files_for_any_size(workdir, text, tmp_path):
    net, chosen = segjax.load(workdir, **text), SIZES[: 2 if "crf" in text else None]
    photographs = Photographs(chosen)
    label_files.write(net, photographs, np.array(chosen, np.int32), tmp_path)
    for index, image in enumerate(photographs.images):
        written = png.decode_mask((tmp_path / f"photo {index}.png").read_bytes(), "")
        found = net.label(image)
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, written)


@EVERY_VIEW
def test_labels_of_arrays_are_those_that_an_evaluation_keeps(workdir, text, tmp_path):
    net = segjax.load(workdir, step="latest", **text)
    run = prediction.networks.load(workdir, "latest")
    split = made.open_split(catalog.load(**run.config.data), "val")
    protocol = made.protocols.resolve(
        run.config,
        run.bucket,
        views_text=text.get("protocol", ""),
        crf_text=text.get("crf", ""),
    )
    evaluator = Evaluator(run.config, run.network.model, run.mesh, split, protocol, details=True)
    path = tmp_path / "eval-val.json"
    kept.evaluate(evaluator, run.network, path, report.Origin(run.step, "raw", "", 0))
    mark = json.loads(path.read_text())["result"]
    maps, result = kept_labels.Reader(path, mark), np.load(path.with_suffix(".npz"))
    assert len(result["index"]) == 4
    for index, name in zip(result["index"], result["names"], strict=True):
        image, _ = split.source[int(index)]
        np.testing.assert_array_equal(net.label(image), maps[str(name)])


@EVERY_VIEW
def test_the_argmax_of_the_scores_is_the_label(workdir, text):
    net, chosen = segjax.load(workdir, **text), SIZES[: 1 if "crf" in text else 3]
    images = Photographs(chosen).images
    found = net.scores(images)
    assert [scores.shape for scores in found] == [(*size, 11) for size in chosen]
    for image, scores in zip(images, found, strict=True):
        assert scores.dtype == np.float32
        np.testing.assert_array_equal(scores.argmax(-1), net.label(image))


def test_scores_are_logits_before_softmax_and_logarithms_of_fused_probabilities(workdir):
    image = Photographs([(48, 64)]).images[0]
    plain = segjax.load(workdir)
    (scores,) = plain.scores([image])
    seen = plain.network(image[None].astype(np.float32))
    rows, cols = seen.matrices((48, 64))
    expected = np.einsum("Hh,hwk,Ww->HWk", rows, seen.values[0], cols)
    np.testing.assert_allclose(scores, expected, atol=1e-4 * np.abs(expected).max())
    (fused,) = segjax.load(workdir, protocol=VIEWS["views"]["protocol"]).scores([image])
    np.testing.assert_allclose(np.exp(fused).sum(-1), 1, rtol=1e-4)


def test_an_array_of_images_is_as_good_as_a_list(workdir):
    net, images = segjax.load(workdir), np.stack(Photographs([(48, 64)] * 3).images)
    for a, b in zip(net.scores(images), net.scores(list(images)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert net.scores([]) == []


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 4), np.uint8), np.zeros((4, 5, 3), np.float32)],
)
def test_what_is_no_image_is_refused(workdir, image):
    with pytest.raises((InputError, ValueError), match=r"uint8 \[H, W, 3\]"):
        segjax.load(workdir).label(image)


def test_the_step_and_weights_are_those_asked_for(workdir):
    raw, ema = (segjax.load(workdir, step="latest", weights=kind) for kind in ("raw", "ema"))
    assert raw.step == ema.step == 4
    assert raw.spec.classes[0] == "sky"
    kernels = [net.network.arrays()["backbone/stem/kernel"] for net in (raw, ema)]
    assert (kernels[0] != kernels[1]).any()
    assert segjax.load(workdir, step=4).step == 4


@pytest.mark.parametrize("protocol", ["", "single, samples=2", "single, bucket=16"])
def test_the_labels_of_an_image_do_not_depend_on_its_company(workdir, protocol):
    net = segjax.load(workdir, protocol=protocol)
    sizes = [(48 + 3 * i, 64 + i) for i in range(11)]
    photographs = Photographs(sizes)
    together = net.labelled(photographs, np.array(sizes, np.int32))
    for labelled in together:
        if labelled.index in (0, 5, 10):
            alone = net.label(photographs.images[labelled.index])
            np.testing.assert_array_equal(alone, labelled.label)


def test_devices_change_no_label(workdir):
    image = Photographs([(48, 64)]).images[0]
    one, all_eight = (segjax.load(workdir, devices=jax.devices()[:count]) for count in (1, 8))
    assert (one.label(image) == all_eight.label(image)).mean() > 0.999


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ({"protocol": "singel"}, 'Did you mean "single"'),
        ({"crf": "deeplab_v9"}, "deeplab_v9"),
        ({"step": 1}, "no checkpoint '1'"),
    ],
)
def test_what_is_not_known_is_said_when_it_is_loaded(workdir, text, told):
    with pytest.raises(InputError, match=told):
        segjax.load(workdir, **text)


def test_loading_needs_no_optimiser(workdir, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("no optimiser is needed")

    monkeypatch.setattr(optim, "build", refuse)
    assert segjax.load(workdir).label(np.zeros((48, 64, 3), np.uint8)).shape == (48, 64)


@pytest.mark.parametrize(
    "module", ["segjax.prediction", "segjax.evaluation.kept", "segjax.network", "segjax.predict"]
)
def test_prediction_and_evaluation_import_no_training(module):
    program = (
        f"import sys, {module}; "
        "print([name for name in sys.modules if name.startswith('segjax.training')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=programs.ROOT,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.strip() == "[]"


def test_samples_give_labels_with_their_uncertainty_as_predict_writes_it(workdir, tmp_path):
    net = segjax.load(workdir, protocol="single, samples=2")
    photographs, sizes = Photographs(SIZES[:3]), np.array(SIZES[:3], np.int32)
    label_files.write(net, photographs, sizes, tmp_path)
    for index in range(3):
        stem = f"photo {index}"
        variance = np.load(tmp_path / f"{stem}_uncertainty.npy")
        assert variance.dtype == np.float32
        assert variance.shape == SIZES[index]
        picture = cv2.imread(str(tmp_path / f"{stem}_uncertainty.png"))
        assert picture.shape == (*variance.shape, 3)
        assert variance.max() > 0
        brightest = picture.sum(-1).argmax()
        assert variance.flat[brightest] > 0.95 * variance.max()
    assert len(list(tmp_path.iterdir())) == 4 * 3


def test_predict_draws_what_the_crf_changed(workdir, tmp_path):
    net = segjax.load(workdir, crf=CRF)
    label_files.write(net, Photographs([(48, 64)]), np.array([(48, 64)]), tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "photo 0.png", "photo 0_overlay.png", "photo 0_crf.png"
    }  # fmt: skip


def test_a_recipe_with_weights_labels_without_a_run(workdir, tmp_path):
    run = prediction.networks.load(workdir, "latest")
    path = tmp_path / "net.safetensors"
    weight_files.write(path, run.network.arrays(), {"preprocess": {**run.config.preprocess}})
    config = programs.config(init__from=str(path), preprocess__bgr=True)
    net = segjax.pretrained(config)
    assert net.step == 0
    assert net.network.model.preprocess == run.network.model.preprocess  # as the weights know it
    image = Photographs([(48, 64)]).images[0]
    np.testing.assert_array_equal(
        net.label(image), segjax.load(workdir, step="latest").label(image)
    )
    with pytest.raises(InputError, match="config.init.from: a network without a run needs weights"):
        segjax.pretrained(programs.config())
