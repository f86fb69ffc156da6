"""What comparisons with other implementations share: images, weights, our side, costs, the page.

Nothing here needs torch: the tests use it, too.
"""

import argparse
import dataclasses
import datetime
import functools
import json
import math
import pathlib
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.parity.origins import ORIGINS
from segjax import initial_weights
from segjax.models import Segmenter, functional, importers, resize
from segjax.models.preprocess import Preprocess
from segjax.runs import run_folder

ROOT = pathlib.Path(__file__).parents[2]
SEED = 0
Build = Callable[[nnx.Rngs], Segmenter]


def draw_images(
    sizes: Sequence[tuple[int, int]], patch: tuple[int, int] = (5, 7)
) -> list[np.ndarray]:
    """uint8 [H, W, 3] of each size, patches of one colour."""
    rng, (high, wide) = np.random.default_rng(SEED), patch
    images = []
    for height, width in sizes:
        patches = rng.integers(0, 256, (-(-height // high), -(-width // wide), 3), np.uint8)
        images.append(patches.repeat(high, axis=0).repeat(wide, axis=1)[:height, :width])
    return images


class Recipe(NamedTuple):
    """How an array is drawn.

    Attributes:
        shape: of it.
        kind: "kernel", of about He et al.'s deviation; "scale" around 1, "var" 0.5 to 2, "bias"
            and "mean" up to 0.5; "counter", 0.
        fan_in: of a kernel.
        gain: multiplies a kernel or a scale.
    """

    shape: tuple[int, ...]
    kind: str
    fan_in: int = 1
    gain: float = 1


def draw(name: str, recipe: Recipe) -> np.ndarray:
    """float32 array that its name and recipe alone decide, the same with every version of numpy.

    Whole numbers times a power of two.
    """
    shape, kind, fan_in, gain = recipe
    if kind == "counter":
        return np.zeros(shape, np.int64)
    words = np.random.PCG64([SEED, *name.encode()]).random_raw(math.prod(shape))
    whole = (words >> np.uint64(32)).astype(np.int64).reshape(shape)
    if kind == "kernel":
        scale = math.sqrt(2 / fan_in) / 9 * gain  # 9: the deviation of the whole numbers
        return np.ldexp((whole % 31 - 15).astype(np.float32), round(math.log2(scale)))
    if kind == "var":
        return (whole % 25 + 8).astype(np.float32) / 16
    if kind == "scale":
        return (whole % 17 + 8).astype(np.float32) / 16 * np.float32(gain)
    return (whole % 31 - 15).astype(np.float32) / 32


def trees(build: Build, origin: str, arrays: Mapping[str, np.ndarray]) -> Any:
    """(parameters, batch statistics) of our network, every leaf from a file of that origin."""
    like = jax.eval_shape(functools.partial(functional.initial_arrays, build), 0)
    shapes = {path: leaf.shape for path, leaf in initial_weights.flatten(*like).items()}
    found, unused = ORIGINS[origin].convert(arrays, shapes)
    placed = importers.match(found, shapes, (), where=origin, unused=unused).arrays

    def take(path, _):
        return jnp.asarray(placed[jax.tree_util.keystr(path[1:], simple=True, separator="/")])

    return jax.tree_util.tree_map_with_path(take, like)


def network(build: Build, preprocess: Mapping[str, Any], pooled: bool = False) -> Callable:
    """fn(trees, image uint8 [H, W, 3]) -> logits of every output, [H, W, K]; or their means, [K].

    Args:
        build: makes the network.
        preprocess: of the origin.
        pooled: the mean over the map, as a classifier takes it, in place of the upsampled map.
    """
    _, graph = functional.graphs(build)
    prepare = Preprocess(**preprocess)

    @jax.jit
    def run(trees, image):
        outputs = functional.merge(graph, *trees)(prepare(image[None]))
        if pooled:
            return [scores.values[0].mean((0, 1)) for scores in outputs]
        size = image.shape[:2]
        return [resize.apply(s.values, *s.matrices(size))[0] for s in outputs]

    return run


def error(got: np.ndarray, expected: np.ndarray) -> float:
    """Largest difference, of the largest expected number."""
    got = np.asarray(got)
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def parameters(build: Build) -> int:
    """Numbers that a network learns, those of frozen norms too; no running statistics."""
    like = jax.eval_shape(functools.partial(functional.initial_arrays, build), 0)
    leaves = initial_weights.flatten(*like).items()
    return sum(leaf.size for path, leaf in leaves if path.split("/")[-1] not in ("mean", "var"))


def multiply_adds(build: Build, size: tuple[int, int], pooled: bool = False) -> int:
    """Of the convolutions in the form for accelerators, for one image, by the jaxpr.

    A 1 x 1 convolution is a matrix product there. Products in full precision are resizes and
    poolings, and not counted.

    Args:
        build: makes the network.
        size: of the image.
        pooled: the head sees the mean of the map, as a classifier's does, not every cell of it.
    """
    like = jax.eval_shape(functools.partial(functional.initial_arrays, build), 0)
    _, graph = functional.graphs(build)

    def run(trees, image):
        model = functional.merge(graph, *trees)
        if not pooled:
            return [scores.values for scores in model(image)]
        features = model.backbone(image)
        means = {name: x.mean((1, 2), keepdims=True) for name, x in features.stages.items()}
        return model.head(dataclasses.replace(features, stages=means)).values

    image = jax.ShapeDtypeStruct((1, *size, 3), jnp.float32)
    return sum(map(_cost, _equations(jax.make_jaxpr(run)(like, image).jaxpr)))


def _equations(jaxpr: Any) -> Iterator[Any]:
    """All equations, of a choice by platform those of the last branch, the default."""
    for eqn in jaxpr.eqns:
        yield eqn
        if eqn.params.get("branches_platforms"):
            assert eqn.params["branches_platforms"][-1] is None
            yield from _equations(eqn.params["branches"][-1].jaxpr)
            continue
        for value in eqn.params.values():
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from _equations(inner)


def _cost(eqn: Any) -> int:
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        out = eqn.params["dimension_numbers"].rhs_spec[0]
        return math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // kernel[out]
    if eqn.primitive.name == "dot_general":
        precision = jax.lax.Precision.HIGHEST
        if eqn.params["precision"] in (precision, (precision, precision)):
            return 0
        (contracted, _), _ = eqn.params["dimension_numbers"]
        shape = eqn.invars[0].aval.shape
        return math.prod(eqn.outvars[0].aval.shape) * math.prod(shape[i] for i in contracted)
    return 0


def about(given: argparse.Namespace, **more: str) -> dict[str, Any]:
    """What a page begins with; `more` names the command, the oracles, other software."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    versions = run_folder.versions() | more.pop("versions", {})
    date = str(datetime.date.today())
    return more | {
        "hardware": given.hardware,
        "date": date,
        "commit": commit,
        "versions": versions,
    }


def write_page(name: str, about: Mapping, measured: Mapping, parts: Sequence[str]) -> None:
    """NAME.json and NAME.md beside this file; `parts` are the paragraphs behind the first two."""
    folder = pathlib.Path(__file__).parent
    (folder / f"{name}.json").write_text(json.dumps({**about, **measured}, indent=2) + "\n")
    software = ", ".join(f"{k} {v}" for k, v in about["versions"].items() if k != "devices")
    title, *rest = parts
    head = [
        title,
        f"```bash\n{about['command']}\n```",
        f"{about['oracle']}; {about['hardware']}; {about['date']}; {software}; made on top of "
        f"commit {about['commit']}.",
    ]
    (folder / f"{name}.md").write_text("\n\n".join([*head, *rest]) + "\n")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """In Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
