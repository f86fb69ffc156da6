"""The recipe `pretrained`: a file of weights is enough for the network that it belongs to."""

import functools
import json
import pathlib

import jax
import numpy as np
import pytest

import segjax
from experiments.parity import drawn
from experiments.parity import pretrained_cases as cases
from segjax import initial_network, initial_weights, network
from segjax.configuration import loading
from segjax.data import class_tables
from segjax.data.dataset import numbered
from segjax.errors import InputError
from segjax.models import functional, resize
from segjax.training import assembly, first_state
from tests import programs, tiny

FIXTURES = pathlib.Path(__file__).parent / "fixtures" / "pretrained"
TOLERANCE = 1e-4  # of the largest logit
K = 5
CLASSIFIERS = [name for name, case in cases.CASES.items() if "vgg16" in name or case.pooled]
SEGMENTERS = [name for name in cases.CASES if name not in CLASSIFIERS]


@functools.cache
def tensors(name: str) -> dict[str, np.ndarray]:
    with np.load(FIXTURES / f"{name}.npz") as file:
        recipes = json.loads(str(file["recipes"]))
    return {n: drawn.draw(n, drawn.Recipe(*recipe)) for n, recipe in recipes.items()}


def logits(name: str) -> np.ndarray:
    with np.load(FIXTURES / f"{name}.npz") as file:
        return file["logits"]


def write(folder: pathlib.Path, name: str, **changes: np.ndarray) -> pathlib.Path:
    np.savez(folder / f"{name}.npz", **(tensors(name) | changes))
    return folder / f"{name}.npz"


def config(path: pathlib.Path, words: str = "", **changes):
    made = loading.load(f"pretrained:{words}" if words else "pretrained")
    made.init["from"] = str(path)
    for key, value in changes.items():
        *groups, last = key.split("__")
        functools.reduce(lambda place, group: place[group], groups, made)[last] = value
    return made


def run(net: network.Network, case: cases.Case) -> np.ndarray:
    """The kept logits of a network."""
    image = drawn.draw_images([cases.SIZE], case.patch)[0]

    @jax.jit
    def scores(net, image):
        found = net(image[None])
        if case.pooled:
            return found.values[0].mean((0, 1))
        return resize.apply(found.values, *found.matrices(cases.SIZE))[0]

    found = np.asarray(scores(net, image))
    return found if case.pooled else found[:: cases.EVERY, :: cases.EVERY]


def error(got: np.ndarray, expected: np.ndarray) -> float:
    assert got.shape == expected.shape
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("name", cases.CASES)
def test_a_file_alone_gives_the_network_of_its_library(name, tmp_path):
    made = config(write(tmp_path, name))
    classes = K if name in CLASSIFIERS else None
    net, _ = initial_weights.pretrained(made, classes, jax.devices()[:1])
    assert error(run(net, cases.CASES[name]), logits(name)) <= TOLERANCE


# An option of a file's network, a wrong value, and by how much that moves the logits at least.
WRONG = {
    "deeplabv3_resnet50": {
        "model.head.order": "pool_first",
        "model.head.align": "centres",
        "model.head.rates": (6, 12, 18),
        "model.backbone.dilation_rule": "paper",
        "model.backbone.output_stride": 16,
        "model.backbone.pool_rounding": "ceil",
        "model.backbone.stride_in": "1x1",
        "model.backbone.multi_grid": (1, 2, 4),
    },
    "fcn_resnet50": {"model.backbone.output_stride": 32},
    "refinenet50": {"model.head.align": "centres", "model.head.chain": "conv_first"},
    "deeplab_v2_resnet50": {
        "model.head.align": "centres",
        "model.multi_scale.align": "corners",
        "model.multi_scale.scales": (1.0,),
        "model.backbone.stride_in": "3x3",
    },
    "pspnet50": {"model.head.bins": (6, 3, 2, 1), "model.backbone.output_stride": 16},
    "deeplab_v3_mobilenet_v2": {"model.head.align": "half_pixel"},
    "segnet_basic": {"model.head.activation": True, "model.backbone.local_norm": False},
    "fcn8s": {"model.backbone.border": "same"},
    "mobilenet_v2": {"model.backbone.norm": {"name": "batch", "epsilon": 1e-5}},
}
ROWS = [(name, key, value) for name, row in WRONG.items() for key, value in row.items()]


@functools.cache
def whole(name: str, folder: pathlib.Path) -> tuple[object, initial_weights.Start]:
    """The config of a file's network and the start from it."""
    made = config(write(folder, name))
    start = initial_weights.start_of(made)
    classes = start.content.spec or K
    initial_weights.adopt_network(made, start, classes)
    return made, start


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> pathlib.Path:
    return tmp_path_factory.mktemp("weights")


@pytest.mark.parametrize(("name", "key", "value"), ROWS)
def test_an_option_that_is_not_the_weights_own_is_refused_by_its_name(name, key, value, folder):
    made, start = whole(name, folder)
    changed = made.copy_and_resolve_references()
    *groups, last = key.split(".")
    functools.reduce(lambda place, group: place[group], groups, changed)[last] = value
    model = network.model_of(changed, start.content.spec or K)
    with pytest.raises(InputError) as told:
        start.check(model)
    text = str(told.value)
    assert "\n" not in text
    shown = "{" if isinstance(value, dict) else initial_network.keys.shown(value)
    assert f"config.{key} is {shown}" in text
    assert ", theirs " in text
    assert f"--config.init.differs=\"('{key}',)\"" in text
    allowed = initial_weights.Start(start.name, "", "", (), (key,))
    allowed.__dict__["content"] = start.content
    allowed.check(model)


def test_the_shipped_recipes_say_what_the_ports_do_otherwise(folder):
    for name, recipe, keys in (
        ("refinenet50", "refinenet_resnet101", ["model.backbone.depth", "model.head.align"]),
        (
            "deeplab_v2_resnet50",
            "deeplab_v2_resnet101",
            ["model.backbone.depth", "model.head.align", "model.multi_scale.align"],
        ),
    ):
        _, start = whole(name, folder)
        made = loading.load(recipe)
        found = initial_network.differences(
            start.content.network, made.model.to_dict(), ("backbone", "head")
        )
        assert [one.key for one in found if not one.key.endswith("width")] == keys


def test_a_classifier_leaves_strides_and_dilations_to_the_paper_that_starts_from_it(folder):
    _, start = whole("resnet18", folder)
    made = loading.load("deeplab_v3_resnet101")
    made.model.backbone.update({"depth": 18, "width": 4})
    model = network.model_of(made, K)
    assert made.model.backbone.output_stride == 16
    start.skip = ("head/*",)
    start.check(model)
    made.model.backbone.pool_rounding = "ceil"  # not this: 112 rows are pooled with a border
    with pytest.raises(InputError, match="config.model.backbone.pool_rounding is 'ceil', theirs"):
        start.check(network.model_of(made, K))
    start.skip = ()


def test_an_auxiliary_head_stays_in_the_file_if_the_network_has_none(folder):
    made, start = whole("fcn_resnet50", folder)
    without = made.copy_and_resolve_references()
    without.model.aux = None
    model = network.model_of(without, start.content.spec)
    start.check(model)
    leaves = functional.by_path(*model.shapes())
    left = start._match({path: leaf.shape for path, leaf in leaves.items()}).unused
    assert left["aux/score/kernel"] == "the network has no auxiliary head"


def test_a_pattern_that_fits_no_option_is_refused(folder):
    made, start = whole("refinenet50", folder)
    start.differs = ("model.head.aling",)
    with pytest.raises(InputError, match=r"'model.head.aling' fits no option.*model.head.align"):
        start.check(network.model_of(made, start.content.spec))
    start.differs = ()


def state_of(made, spec):
    start = initial_weights.start_of(made)
    initial_weights.adopt_preprocess(made, start)
    initial_weights.adopt_network(made, start, spec)
    training = assembly.assemble(made, spec, None, jax.devices()[:1])
    start.check(training.model)
    ts = first_state.initial_state(training, start)
    return training, start, ts


def test_other_classes_get_a_new_layer_of_scores_and_keep_the_rest(folder):
    made = config(folder / "deeplabv3_resnet50.npz")
    write(folder, "deeplabv3_resnet50")
    _, start, ts = state_of(made, tiny.SPEC)  # five classes, of other names
    assert made.init.skip == ("aux/score/*", "head/score/*")
    file = start.content.arrays
    kernel = ts.params["head"]["conv"]["conv"]["kernel"]
    np.testing.assert_array_equal(kernel, file["classifier.1.weight"].transpose(2, 3, 1, 0))
    assert not np.array_equal(
        ts.params["head"]["score"]["kernel"], file["classifier.4.weight"].transpose(2, 3, 1, 0)
    )


@pytest.mark.parametrize("name", SEGMENTERS)
def test_the_same_classes_keep_all(name, folder):
    write(folder, name)
    made = config(folder / f"{name}.npz")
    start = initial_weights.start_of(made)
    initial_weights.adopt_network(made, start, numbered("x", [f"class {i}" for i in range(K)]))
    assert made.init.skip == ()


def test_known_numbers_of_classes_have_the_names_of_their_data_sets(folder):
    score = {"classifier.4.weight": np.zeros((21, 32, 1, 1)), "classifier.4.bias": np.zeros(21)}
    np.savez(folder / "voc.npz", **(tensors("fcn_resnet50") | score))
    content = initial_weights.read(folder / "voc.npz")
    assert content.spec == class_tables.VOC2012
    assert initial_weights.same_classes(content, class_tables.VOC2012)
    turned = numbered("voc", class_tables.VOC2012.classes[::-1])  # sorted when they are loaded
    assert initial_weights.same_classes(content, turned)
    assert not initial_weights.same_classes(content, numbered("mine", [str(i) for i in range(21)]))


def test_predict_labels_with_a_file_and_says_what_it_cannot(folder, tmp_path):
    write(folder, "deeplab_v3_mobilenet_v2")
    net = segjax.pretrained(config(folder / "deeplab_v3_mobilenet_v2.npz"))
    image = drawn.draw_images([cases.SIZE])[0]
    expected = logits("deeplab_v3_mobilenet_v2").argmax(-1)
    assert (net.label(image)[:: cases.EVERY, :: cases.EVERY] == expected).mean() > 0.999
    write(folder, "resnet18")
    with pytest.raises(InputError, match="no segmentation network.*save=heatmaps"):
        segjax.pretrained(config(folder / "resnet18.npz"))
    with pytest.raises(InputError, match="made for 5 classes, not for 7 classes"):
        initial_weights.pretrained(config(folder / "resnet18.npz"), 7)
    with pytest.raises(InputError, match="it needs a file of them"):
        state_of(loading.load("pretrained"), tiny.SPEC)


@pytest.mark.slow
def test_a_run_of_the_recipe_is_fine_tuned_and_goes_on_without_the_file(folder, tmp_path):
    path = write(tmp_path, "deeplab_v3_mobilenet_v2")
    made = config(path, "smoke", total_steps=2)
    programs.train_plainly(made, tmp_path / "run")
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["model"]["head"]["name"] == "deeplab_v3"
    assert stored["init"]["skip"] == ["head/score/*"]
    path.unlink()
    again = config(path, "smoke", total_steps=3)
    programs.train_plainly(again, tmp_path / "run")
    assert programs.final(tmp_path / "run")["step"] == 3
    # A run is weights, too: its network is that of the recipe.
    net = segjax.pretrained(config(tmp_path / "run"))
    assert net.spec.num_classes == 11
    assert net.label(drawn.draw_images([(32, 48)])[0]).shape == (32, 48)


def test_options_beside_the_weights_change_theirs(folder):
    write(folder, "deeplab_v3_mobilenet_v2")
    made = config(folder / "deeplab_v3_mobilenet_v2.npz")
    made.model.head.dropout = 0.3
    state_of(made, tiny.SPEC)
    assert made.model.head.dropout == 0.3
    made = config(folder / "deeplab_v3_mobilenet_v2.npz")
    made.model.head.align = "centres"
    with pytest.raises(InputError, match="config.model.head.align is 'centres', theirs 'corners'"):
        state_of(made, tiny.SPEC)
