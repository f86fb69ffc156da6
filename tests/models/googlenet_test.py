"""GoogLeNet, with PyTorch's logits in fixtures/googlenet.npz."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import models
from segjax.errors import InputError
from segjax.models import functional, importers, layers
from segjax.models.backbones import googlenet
from segjax.models.importers import weight_files
from segjax.models.preprocess import Preprocess
from tests import tiny
from tests.models.importers import real

FIXTURE = pathlib.Path(__file__).parents[1] / "fixtures" / "googlenet.npz"
FILE = "googlenet_bvlc.safetensors"
STRIDES = {"stage1": 2, "stage2": 4, "stage3": 8, "stage4": 16, "stage5": 32}
ORIGIN = importers.ORIGINS["caffejs_googlenet"]


def build(rngs: nnx.Rngs, *, width: int = 4, classes: int = 5, dtype: str = "float32", **head):
    """GoogLeNet under a head, the classifier by default."""
    return models.build(
        backbone={"name": "googlenet", "width": width, "dropout": 0.4},
        head={"name": "classifier"} | head,
        aux=None,
        num_classes=classes,
        dtype=dtype,
        rngs=rngs,
    )


def logits(arrays: dict[str, np.ndarray], images: np.ndarray, **options) -> np.ndarray:
    """Logits [B, K] of images [B, H, W, 3], with all weights given by the names of caffejs."""
    make = functools.partial(build, **options)
    like = jax.eval_shape(lambda: functional.initial_arrays(make, 0)[0])
    wanted = functional.by_path(like)
    found, unused = ORIGIN.convert(arrays, wanted)
    shapes = {path: leaf.shape for path, leaf in wanted.items()}
    matched = importers.match(found, shapes, (), where="f", unused=unused).arrays
    params = jax.tree_util.tree_map_with_path(
        lambda path, _: matched[jax.tree_util.keystr(path, simple=True, separator="/")], like
    )
    graph = functional.graphs(make).inference

    @jax.jit
    def run(params, x):
        return functional.merge(graph, params, {})(x)[0].values.mean((1, 2))

    return np.asarray(run(params, images))


def test_with_its_classifier_it_has_the_parameters_of_the_release():
    params, batch_stats = jax.eval_shape(
        lambda: functional.initial_arrays(functools.partial(build, width=64, classes=1000), 0)
    )
    assert tiny.count(params) == 6_998_552
    assert not batch_stats


@functools.cache
def shapes_of(size: tuple[int, int], width: int = 4) -> dict[str, tuple[int, ...]]:
    """Stage -> shape, without computing."""

    def run(x):
        model = googlenet.GoogLeNet(width=width, dropout=0.4, rngs=functional.keys(0))
        features = model(x, rngs=nnx.Rngs(0))
        assert dict(features.strides) == STRIDES
        assert features.border == "same"
        assert {name: x.shape[-1] for name, x in features.stages.items()} == model.channels
        return dict(features.stages)

    found = jax.eval_shape(run, jnp.zeros((1, *size, 3)))
    return {name: stage.shape for name, stage in found.items()}


def test_stages_are_those_of_the_paper_at_224():
    assert list(shapes_of((224, 224), 64).items()) == [
        ("stage1", (1, 112, 112, 64)),
        ("stage2", (1, 56, 56, 192)),
        ("stage3", (1, 28, 28, 480)),
        ("stage4", (1, 14, 14, 832)),
        ("stage5", (1, 7, 7, 1024)),
    ]


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (33, 47), (7, 1), (225, 64)])
def test_stages_are_never_empty_and_end_inside_the_image(size):
    shapes = shapes_of(size)
    for axis, pixels in enumerate(size):
        cells = -(-pixels // 2)  # of the first convolution
        for stage in STRIDES:
            if stage != "stage1":
                # Windows of 3 from every second cell on, the last one clipped.
                cells = max(1, len(range(0, cells - 1, 2)))
            assert shapes[stage][1 + axis] == cells, stage


def test_every_stage_lies_where_its_shift_says():
    """The bright pixels that a cell responds to lie around its centre.

    The modules have only their 1 x 1 convolutions: else a cell would see more than the image.
    """
    make = functools.partial(build, width=2)
    graph = functional.graphs(make).inference

    def opened(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        closed = "inception" in name and "conv1x1" not in name
        return jnp.full(leaf.shape, 0.0 if closed or name.endswith("bias") else 0.1)

    like = jax.eval_shape(lambda: functional.initial_arrays(make, 0)[0])
    params = jax.tree_util.tree_map_with_path(opened, like)
    rows = 256

    @jax.jit
    def answers(params, x):
        features = functional.merge(graph, params, {}).backbone(x)
        assert features.strides == STRIDES
        shifts.update(features.shifts)
        return {name: stage[:, :, 0].max(-1) > 0 for name, stage in features.stages.items()}

    shifts = {}
    pixels = 100 * jnp.eye(rows)[:, :, None, None] * jnp.ones(3)  # [rows, rows, 1, 3]
    for stage, seen in jax.device_get(answers(params, pixels)).items():
        stride, checked = STRIDES[stage], 0
        for cell in range(seen.shape[1]):
            first, last = np.flatnonzero(seen[:, cell])[[0, -1]]
            if first > 0 and last < rows - 1:  # not cut off at the border
                centre = (first + last + 1) / 2
                assert centre == stride * cell + stride / 2 + shifts[stage][0], stage
                checked += 1
        assert checked >= 3


@pytest.mark.parametrize("channels", [1, 2, 7, 12])
def test_the_response_norm_equals_krizhevsky_s_formula(channels):
    x = np.random.default_rng(0).normal(0, 150, (2, 3, 2, channels)).astype(np.float32)
    expected = np.zeros(x.shape)
    for index in np.ndindex(x.shape):
        *place, c = index
        near = x[(*place, slice(max(0, c - 2), c + 3))].astype(np.float64)
        expected[index] = x[index] / (1 + 1e-4 / 5 * (near**2).sum()) ** 0.75
    assert np.abs(expected / x).min() < 0.7  # it does something
    np.testing.assert_allclose(jax.jit(layers.local_response_norm)(x), expected, rtol=1e-5)
    half = jax.jit(layers.local_response_norm)(x.astype(jnp.bfloat16))
    assert half.dtype == jnp.bfloat16
    np.testing.assert_allclose(half.astype(np.float32), expected, rtol=0.02)


@pytest.mark.parametrize("size", [(97, 130), (64, 33)])
def test_logits_equal_pytorch_s(size):
    with np.load(FIXTURE) as file:
        arrays = dict(file)
    expected = {name: arrays.pop(name) for name in list(arrays) if name.startswith("logits")}
    image = np.random.default_rng(size[0]).normal(0, 100, (1, *size, 3)).astype(np.float32)
    want = expected[f"logits_{size[0]}x{size[1]}"]
    np.testing.assert_allclose(logits(arrays, image)[0], want, atol=1e-5 * np.abs(want).max())


PHOTOGRAPHS = {  # top class and its probability, from the README of the weights
    "coffee": ("espresso", 0.90),
    "chelsea": ("Egyptian cat", 0.47),
    "rocket": ("missile", 0.34),
}


@pytest.fixture(scope="module")
def chances() -> dict[str, np.ndarray]:
    """Photograph -> the release's probabilities of classes."""
    images = real.photographs(PHOTOGRAPHS)
    arrays, _ = weight_files.read(real.FOLDER / FILE)
    seen = Preprocess(**ORIGIN.preprocess)(jnp.asarray(images))
    scores = logits(arrays, seen, width=64, classes=1000)
    return dict(zip(PHOTOGRAPHS, np.asarray(jax.nn.softmax(scores)), strict=True))


@real.needs(FILE)
@pytest.mark.parametrize("photograph", PHOTOGRAPHS)
def test_the_release_classifies_photographs_as_in_its_readme(chances, photograph):
    name, probability = PHOTOGRAPHS[photograph]
    assert real.imagenet_classes()[chances[photograph].argmax()] == name
    assert chances[photograph].max() == pytest.approx(probability, abs=0.01)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 47), (65, 31)])
@pytest.mark.parametrize("head", ["fcn32s", "fcn16s", "fcn8s", "classifier"])
def test_every_head_covers_exactly_the_image_at_any_size(head, size):
    def run(x):
        return build(functional.keys(0), name=head)(x, rngs=nnx.Rngs(0))[0]

    scores = jax.eval_shape(run, jnp.zeros((1, *size, 3)))
    for matrix, pixels, cells in zip(
        scores.matrices(size), size, scores.values.shape[1:3], strict=True
    ):
        assert matrix.shape == (pixels, cells)
        np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)


@pytest.mark.parametrize("head", ["fcn16s", "fcn8s"])
def test_learned_upsampling_is_refused_with_the_reason(head):
    def run(x):
        return build(functional.keys(0), name=head, upsampling="learned")(x, rngs=nnx.Rngs(0))[
            0
        ].values

    with pytest.raises(InputError, match='have no shifts.*it must be "fixed"') as told:
        jax.eval_shape(run, jnp.zeros((1, 64, 64, 3)))
    assert "\n" not in str(told.value)


def test_dropout_acts_on_the_last_stage_alone_and_follows_its_key():
    net = tiny.module(build)
    x = 100 * jax.random.normal(jax.random.key(0), (1, 33, 47, 3))

    @jax.jit
    @jax.vmap
    def training(key):
        model = functional.merge(net.graphs.training, net.params, net.batch_stats)
        return model.backbone(x, rngs=nnx.Rngs(dropout=key)).stages

    one, other = jax.random.split(jax.random.key(1))
    stages = jax.device_get(training(jnp.stack([one, one, other])))
    assert (stages["stage5"][0] != stages["stage5"][2]).any()
    np.testing.assert_array_equal(stages["stage5"][0], stages["stage5"][1])
    np.testing.assert_array_equal(stages["stage4"][0], stages["stage4"][2])
