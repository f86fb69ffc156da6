"""SegNet, RefineNet and GCN: counts of the papers, variants, and the layers that they add."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from segjax import models
from segjax.configs import gcn_resnet50, refinenet_resnet101, segnet, segnet_basic
from segjax.errors import InputError
from segjax.models import functional, layers, lines, unpooling
from segjax.models.backbones import resnet
from segjax.models.backbones.segnet_encoder import SegNetEncoder
from segjax.models.deconvolution import LearnedUp2
from tests import tiny
from tests.models import zoo

K = 3
_OPTIONS = {"dtype": None, "rngs": nnx.Rngs(0)}


def shapes(classes: int, **model):
    def build(rngs):
        return models.build(**model, num_classes=classes, dtype="float32", rngs=rngs)

    return jax.eval_shape(lambda: functional.initial_arrays(build, 0)[0])


def at_width(config, classes: int, **head) -> int:
    model = config.model.to_dict()
    model["head"] |= head
    return tiny.count(shapes(classes, **model))


# segnet.md, refinenet.md and gcn.md have the sums; two are published (118 M; 29.45 M).
COUNTS = {
    "SegNet": (lambda: at_width(segnet.get_config("camvid,paper"), 11), 29_449_355),
    "SegNet, SUN": (lambda: at_width(segnet.get_config("camvid,paper"), 37), 29_464_357),
    "SegNet-Basic": (lambda: at_width(segnet_basic.get_config(), 11), 1_416_587),
    "RefineNet-101": (lambda: at_width(refinenet_resnet101.get_config(), 21), 118_052_437),
    "RefineNet-101, chains of two": (
        lambda: at_width(refinenet_resnet101.get_config(), 21, blocks=2),
        109_794_901,
    ),
    "GCN-50": (lambda: at_width(gcn_resnet50.get_config(), 21), 26_051_594),
    "GCN-50, biases": (lambda: at_width(gcn_resnet50.get_config(), 21, use_bias=True), 26_052_308),
    # A dense 4 x 4 for each of five upsamplings.
    "GCN-50, deconvolutions": (
        lambda: at_width(gcn_resnet50.get_config("learned"), 21),
        26_051_594 + 5 * 16 * 21**2,
    ),
}


@pytest.mark.parametrize("name", COUNTS)
def test_networks_have_the_papers_number_of_parameters(name):
    count, expected = COUNTS[name]
    assert count() == expected


@pytest.mark.parametrize(
    ("taps", "published"), [(3, 260_694), (5, 434_490), (7, 608_286), (9, 782_082)]
)
def test_a_global_convolution_has_the_parameters_of_the_papers_table_2(taps, published):
    block = nnx.eval_shape(
        lambda: lines.GlobalConv(2048, 21, taps=taps, use_bias=False, rngs=nnx.Rngs(0))
    )
    assert tiny.count(nnx.state(block, nnx.Param)) == published


@pytest.mark.parametrize("axis", [lines.DOWN, lines.ACROSS])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("size", [(7, 9), (8, 6), (1, 2)])
def test_a_line_equals_xlas_convolution(axis, stride, size):
    line = lines.LineConv(4, 3, taps=5, axis=axis, use_bias=True, stride=stride, **_OPTIONS)
    line.bias[...] = jnp.array([1.0, 2.0, 3.0])
    x = jax.random.normal(jax.random.key(0), (2, *size, 4))
    kernel = line.kernel[...]
    pads = ((2, 2), (0, 0))
    if axis == lines.ACROSS:
        kernel, pads = kernel.swapaxes(0, 1), pads[::-1]
    expected = jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), pads, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    tiny.assert_close(line(x), expected + line.bias[...], 1e-6)


def test_resnet_gcns_blocks_cost_as_much_as_bottlenecks():
    for width in (64, 512):
        v = resnet._same_cost(width, 7)
        cost = 2 * 7 * (4 * width * v + v * v) + 4 * width * v
        assert cost == pytest.approx(17 * width**2, rel=0.02)
    model = gcn_resnet50.get_config("resnet_gcn").model
    plain = tiny.count(shapes(21, **gcn_resnet50.get_config().model)["backbone"])
    ours = tiny.count(shapes(21, **model)["backbone"])
    # Blocks that begin a stage see half the channels, which costs lines less than a 1 x 1.
    assert 0.9 < ours / plain < 1


@functools.cache
def built(name: str, **head):
    network = zoo.NETWORKS[name]
    network = network | {"head": network["head"] | head}
    return models.build(**network, num_classes=K, dtype="float32", rngs=nnx.Rngs(0))


@pytest.mark.parametrize("cascades", [1, 2, 4])
def test_refinenet_uses_every_stage_with_any_number_of_blocks(cascades):
    model = built("refinenet", cascades=cascades)
    model.eval()
    x = jax.random.normal(jax.random.key(0), (1, 65, 49, 3))
    features = model.backbone(x)
    scores = model.head(features)
    assert scores.values.shape == (1, 17, 13, K)
    for stage in ("stage2", "stage3", "stage4", "stage5"):
        without = features.stages | {stage: jnp.zeros_like(features.stages[stage])}
        other = model.head(type(features)(without, features.strides, shifts=features.shifts))
        assert np.abs(other.values - scores.values).max() > 0, stage


def test_the_order_of_a_chain_changes_the_scores():
    x = jax.random.normal(jax.random.key(0), (1, 33, 33, 3))
    outputs = {}
    for chain in ("pool_first", "conv_first"):
        model = built("refinenet", chain=chain)
        model.eval()
        outputs[chain] = model(x)[0].values
    assert np.abs(outputs["pool_first"] - outputs["conv_first"]).max() > 0


def test_dropout_after_a_pooling_keeps_its_places_and_dropout_before_it_does_not():
    def encoder(**where):
        return SegNetEncoder(
            depths=(1,), widths=(64,), kernel=3, norm={"name": "none"}, dropout=0.5,
            **where, **_OPTIONS,
        )  # fmt: skip

    x = jax.random.normal(jax.random.key(0), (1, 16, 16, 3))
    plain = encoder()(x)
    for where, same in (("dropped", True), ("dropped_before", False)):
        dropping = encoder(**{where: ("stage1",)})
        dropping.stage1 = encoder().stage1
        kernel = jnp.asarray(np.random.default_rng(0).normal(size=(3, 3, 3, 64)), jnp.float32)
        plain_encoder = encoder()
        for one in (dropping, plain_encoder):
            one.stage1[0].conv.kernel[...] = kernel
        plain = plain_encoder(x)
        found = dropping(x, rngs=nnx.Rngs(dropout=jax.random.key(1)))
        choices = [f.pool_selections["stage1"].packed for f in (plain, found)]
        assert np.array_equal(*choices) == same
        # Single numbers, not whole channels, and what is kept is doubled.
        values = np.asarray(found.stages["stage1"])
        zeros = (values == 0).mean(axis=(0, 1, 2))
        if same:
            assert 0.3 < zeros.min() <= zeros.max() < 0.9
            kept = values != 0
            np.testing.assert_allclose(values[kept], 2 * np.asarray(plain.stages["stage1"])[kept])


def test_the_encoders_image_passes_the_local_norm():
    x = jax.random.uniform(jax.random.key(0), (1, 8, 8, 3), maxval=255.0)
    options = {"depths": (1,), "widths": (4,), "kernel": 7, "norm": {"name": "none"}}
    with_norm = SegNetEncoder(**options, local_norm=True, dtype=None, rngs=nnx.Rngs(0))
    without = SegNetEncoder(**options, dtype=None, rngs=nnx.Rngs(0))
    seen = layers.local_response_norm(x)
    assert np.abs(np.asarray(seen) / np.asarray(x)).max() < 1
    tiny.assert_close(with_norm(x).stages["stage1"], without(seen).stages["stage1"], 1e-6)


def test_mixing_channels_start_with_zero_weights_for_each_other():
    x = jax.random.normal(jax.random.key(0), (1, 3, 5, 4))
    mixing, alone = LearnedUp2(4, kernel=8, mixes=True), LearnedUp2(4)
    tiny.assert_close(mixing(x, (6, 9)), alone(x, (6, 9)), 1e-6)
    kernel = np.array(mixing.kernel[...])
    kernel[3, 3, 0, 1] = 1.0
    mixing.kernel[...] = jnp.asarray(kernel)
    change = np.asarray(mixing(x, (6, 10)) - alone(x, (6, 10)))
    np.testing.assert_allclose(change[..., 1][:, ::2, ::2], x[..., 0], atol=1e-6)
    np.testing.assert_allclose(change[..., [0, 2, 3]], 0, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("gcn", {"taps": 4}, "taps must be odd, 1 or more; got 4"),
        ("gcn", {"upsampling": "nearest"}, "upsampling.*'nearest'.*bilinear, learned"),
        ("refinenet", {"cascades": 3}, "cascades.*3.*4, 2, 1"),
        ("refinenet", {"chain": "conv"}, "chain.*'conv'.*pool_first, conv_first"),
        ("segnet", {"depths": (1, 1)}, "depths must have .* backbone's 3 stages, got 2"),
        ("segnet", {"dropped": ("stage9",)}, "dropped.*'stage9'.*stage1, stage2, stage3"),
        ("segnet", {"single_channel": True}, "single_channel.*one width, got 4, 6, 8"),
    ],
)
def test_wrong_options_are_refused(name, changes, message):
    network = zoo.NETWORKS[name]
    network = network | {"head": network["head"] | changes}
    with pytest.raises(InputError, match=message):
        shapes(3, **network)


def test_unpooling_needs_an_encoder_that_keeps_the_places():
    network = {"backbone": zoo.NETWORKS["gcn"]["backbone"], "aux": None}
    head = zoo.NETWORKS["segnet"]["head"] | {"depths": (1,) * 5}
    model = models.build(**network, head=head, num_classes=3, dtype="float32", rngs=nnx.Rngs(0))
    model.eval()
    with pytest.raises(InputError, match="segnet_encoder"):
        jax.eval_shape(model, jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32))
    with pytest.raises(InputError, match="global_taps must be 0, or odd .*got 4"):
        shapes(3, **zoo.NETWORKS["gcn"] | {
            "backbone": zoo.NETWORKS["gcn"]["backbone"] | {"global_taps": 4}
        })  # fmt: skip


def test_unpooling_restores_sizes_that_pooling_rounded_up():
    """360 x 480: 45 rows become 23, and are 45 again (SegNet's release: upsample5, upsample4)."""
    sizes = []
    x = jax.ShapeDtypeStruct((1, 360, 480, 1), jnp.float32)
    for _ in range(5):
        x, selection = jax.eval_shape(unpooling.max_pool, x)
        sizes.append(x.shape[1:3])
        back = jax.eval_shape(unpooling.unpool, x, selection)
        assert back.shape[1:3] == selection.size
    assert sizes == [(180, 240), (90, 120), (45, 60), (23, 30), (12, 15)]
