import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from segjax import models
from segjax.errors import InputError
from segjax.models import functional
from segjax.models.features import Features, Scores
from segjax.models.resize import Resize
from tests import tiny
from tests.models import zoo

BACKBONE = {
    "name": "vgg16",
    "batch_norm": False,
    "width": 4,
    "fc_width": 8,
    "border": "same",
    "dropout": 0.5,
}


class Coarse(nnx.Module):
    """A head from outside the package."""

    def __init__(self, channels, num_classes, *, bias: bool = True, dtype=None, rngs: nnx.Rngs):
        self.score = nnx.Conv(
            channels["fc7"], num_classes, (1, 1), use_bias=bias, dtype=dtype, rngs=rngs
        )

    def __call__(self, features: Features, rngs: nnx.Rngs | None = None) -> Scores:
        """Features -> Scores at stride 32."""
        return Scores(self.score(features.stages["fc7"]), Resize("half_pixel", 32))


class Bare(nnx.Module):
    """What is neither a backbone nor a head."""

    def __init__(self, *, dtype=None, rngs: nnx.Rngs):
        """Has no layers."""


def shapes(**changes) -> tuple:
    """The shapes of the network's outputs for two images of 33 x 40."""
    options = {"backbone": BACKBONE, "head": {"name": "fcn8s"}, "aux": None, "dtype": "float32"}

    def run(x):
        network = models.build(**options | changes, num_classes=tiny.K, rngs=functional.keys(0))
        return network(x, rngs=nnx.Rngs(0), image=x)

    return jax.eval_shape(run, jnp.zeros((2, 33, 40, 3)))


@pytest.mark.parametrize("name", sorted(zoo.NETWORKS))
@pytest.mark.parametrize("dtype", models.DTYPES)
def test_every_network_scores_every_class_in_either_precision(name, dtype):
    for scores in shapes(**zoo.NETWORKS[name], dtype=dtype):
        assert scores.values.shape[-1] == tiny.K
        assert scores.values.dtype in (dtype, "float32")


def test_a_head_may_come_from_another_module_with_its_options():
    (scores,) = shapes(head={"name": "tests.models.build_test:Coarse", "bias": False})
    assert scores.values.shape == (2, 2, 2, tiny.K)


def test_an_auxiliary_head_comes_after_the_main_one():
    main, aux = shapes(aux={"name": "tests.models.build_test:Coarse"})
    assert main.values.shape == (2, 5, 5, tiny.K)
    assert aux.values.shape == (2, 2, 2, tiny.K)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"head": {"name": "fcn8"}}, r'config.model.head.name: .*fcn8s.*Did you mean "fcn8s"'),
        ({"backbone": BACKBONE | {"name": "resnext"}}, "backbone.name: .*known: goog.*vgg16"),
        ({"backbone": {}}, "config.model.backbone.name: unknown ''; known: "),
        ({"backbone": BACKBONE | {"depth": 3}}, "takes no 'depth'; options: batch_norm, width"),
        ({"head": {"name": "fcn8s", "channels": 3}}, "takes no 'channels'; options: upsampling"),
        ({"backbone": {"name": "vgg16", "width": 4}}, "vgg16 needs batch_norm, fc_width, border"),
        ({"head": {"name": "segjax.models:Head"}}, "cannot import 'segjax.models:Head'"),
        ({"aux": {"name": "fcn"}}, r"config.model.aux.name: unknown 'fcn'"),
        ({"crf": {"iteration": 3}}, 'config.model.crf: CRF-RNN .*Did you mean "iterations"'),
        ({"multi_scale": {"scale": (1,)}}, 'config.model.multi_scale: .*Did you mean "scales"'),
        ({"multi_scale": {"align": "corners"}}, "config.model.multi_scale: it needs scales"),
        ({"backbone": {"name": "tests.models.build_test:Bare"}}, "Bare has no `channels`"),
        ({"head": {"name": "tests.models.build_test:Bare"}}, "does not take that"),
        ({"dtype": "float16"}, r"config.dtype.*float16.*float32, bfloat16"),
    ],
)
def test_a_wrong_name_or_option_is_refused_in_one_line(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        shapes(**changes)
    assert "\n" not in str(caught.value)


CONV = {"name": "conv", "width": 4, "norm": {"name": "none"}}
RESNET = zoo.NETWORKS["conv"]["backbone"]


@pytest.mark.parametrize("part", ["head", "aux"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        (CONV | {"stage": "stage9"}, r"\.stage: unknown 'stage9'"),
        (CONV | {"norm": {"name": "batchnorm"}}, r"\.norm\.name: unknown 'batchnorm'"),
        (CONV | {"norm": {"name": "none", "momentum": 1}}, r"\.norm: none takes no 'momentum'"),
        (CONV | {"align": "centers"}, r"\.align: unknown 'centers'"),  # found at the first call
        ({"name": "fcn8s", "upsampling": "cubic"}, r"\.upsampling: unknown 'cubic'"),
        ({"name": "gcn", "taps": 2}, r"\.taps must be odd"),
        ({"name": "segnet", "depths": (), "kernel": 3, "norm": {}}, r"\.depths must have a number"),
    ],
)
def test_an_error_of_a_head_names_the_key_of_the_head_that_was_written(part, options, message):
    with pytest.raises(InputError, match=rf"^config\.model\.{part}{message}"):
        shapes(**{part: options})


def test_an_error_of_a_norm_names_the_backbone_where_it_stands_there():
    backbone = RESNET | {"norm": {"name": "frozen", "momentum": 0.9}}
    with pytest.raises(InputError, match=r"^config\.model\.backbone\.norm: frozen takes no 'mo"):
        shapes(backbone=backbone, head=CONV)


def test_what_to_do_against_a_norm_of_one_value_names_the_head_that_has_it():
    def run(x):
        network = models.build(
            backbone=RESNET | {"norm": {"name": "frozen"}},
            head=CONV,
            aux=CONV | {"norm": {"name": "batch"}},
            num_classes=tiny.K,
            dtype="float32",
            rngs=functional.keys(0),
        )
        return network(x, rngs=nnx.Rngs(0))

    with pytest.raises(InputError, match=r"--config\.model\.aux\.norm\.name=group"):
        jax.eval_shape(run, jnp.zeros((1, 1, 1, 3)))


def test_the_head_holds_the_score_layers_and_the_backbone_the_rest():
    network = nnx.eval_shape(
        lambda: models.build(
            backbone=BACKBONE,
            head={"name": "fcn8s"},
            aux=None,
            num_classes=tiny.K,
            dtype="float32",
            rngs=nnx.Rngs(0),
        )
    )
    paths = {"/".join(map(str, path)) for path, _ in nnx.to_flat_state(nnx.state(network))}
    head = {f"head/score_{s}/{w}" for s in ("top", "pool4", "pool3") for w in ("kernel", "bias")}
    assert {path for path in paths if path.startswith("head/")} == head
    assert "backbone/fc7/kernel" in paths
