import numpy as np
import pytest

from segjax.models import importers
from segjax.models.importers import subsample, weight_files
from tests.models.importers import caffe_test, foreign, keras_test, network, real, torchvision_test

PARTIAL = "vgg16_block1_block3.safetensors"
FILES = {
    "caffe_vgg16": caffe_test.make,
    "keras_vgg16": keras_test.make,
    "torchvision_vgg16": lambda: torchvision_test.make(batch_norm=False),
}


def model(kernel: int = 3, fc_width: int = 4, rates: tuple[int, ...] = (12,), **options) -> dict:
    """Options of DeepLab on the narrow VGG-16 of `foreign`."""
    backbone = {"rates": rates, "fc_kernel": kernel, "fc_width": fc_width, "width": 4}
    backbone |= {"name": "vgg16_atrous", "average": True, "dropout": 0.5}
    return network.options(backbone | options, {"name": "deeplab_v1"})


@pytest.mark.parametrize("origin", FILES)
@pytest.mark.parametrize(
    ("kernel", "rate", "taps"), [(3, 12, (0, 3, 6)), (4, 8, (0, 2, 4, 6)), (7, 4, tuple(range(7)))]
)
def test_fc6_and_fc7_are_subsampled_evenly(origin, kernel, rate, taps):
    arrays = FILES[origin]()
    whole = foreign.load(arrays).arrays  # those of the plain VGG-16: [7, 7, 32, 8]
    found = network.load(arrays, model(kernel, 4, (rate,)), "head/*", origin=origin)
    fc6, fc7 = (whole[f"backbone/{layer}/kernel"] for layer in ("fc6", "fc7"))
    kept = (0, 2, 4, 6)  # of eight filters
    network.assert_placed(found, "backbone/fc6/0/kernel", fc6[np.ix_(taps, taps, range(32), kept)])
    network.assert_placed(found, "backbone/fc7/0/kernel", fc7[np.ix_((0,), (0,), kept, kept)])
    for layer in ("fc6", "fc7"):
        bias = whole[f"backbone/{layer}/bias"][list(kept)]
        network.assert_placed(found, f"backbone/{layer}/0/bias", bias)
    assert found.left == ["head/classifier/kernel", "head/classifier/bias"]
    for path in whole:
        if path.startswith("backbone/stage"):
            network.assert_placed(found, path, whole[path])


def test_every_fourth_of_4096_filters_is_kept():
    bias = np.arange(4096)
    np.testing.assert_array_equal(subsample.thin(bias, (1024,)), bias[::4])
    np.testing.assert_array_equal(subsample.thin(bias, (4096,)), bias)


def test_every_rate_starts_with_the_same_filters():
    rates = (6, 12, 18, 24)
    found = network.load(caffe_test.make(), model(rates=rates), "head/*").arrays
    for layer in ("fc6", "fc7"):
        for kind in ("kernel", "bias"):
            same = [found[f"backbone/{layer}/{i}/{kind}"] for i in range(len(rates))]
            assert same[0].any()
            for array in same[1:]:
                np.testing.assert_array_equal(array, same[0])


def test_the_layers_of_a_deeplab_are_loaded_unchanged():
    arrays = caffe_test.make()
    for layer in ("fc6", "fc7", "fc8"):
        del arrays[f"{layer}.weight"], arrays[f"{layer}.bias"]
    arrays |= caffe_test.drawn("fc6", 32, 4, 3) | caffe_test.drawn("fc7", 4, 4, 1)
    found = network.load(arrays, model(), "head/*")
    for layer in ("fc6", "fc7"):
        kernel = arrays[f"{layer}.weight"].transpose(2, 3, 1, 0)
        network.assert_placed(found, f"backbone/{layer}/0/kernel", kernel)


def test_arrays_that_are_too_small_or_missing_are_reported():
    arrays = caffe_test.make()
    assert network.refusal(arrays, model(fc_width=9), "head/*") == (
        "4 misshapen: backbone/fc6/0/bias [8] for [9], "
        "backbone/fc6/0/kernel [7, 7, 32, 8] for [3, 3, 32, 9], "
        "backbone/fc7/0/bias [8] for [9], backbone/fc7/0/kernel [1, 1, 8, 8] for [1, 1, 9, 9]"
    )
    del arrays["fc7.bias"]
    text = network.refusal(arrays, model(rates=(6, 12)), "head/*")
    assert text == "2 missing: backbone/fc7/0/bias, backbone/fc7/1/bias"


def test_arrays_for_another_network_do_not_change():
    arrays = caffe_test.make()
    found, _ = importers.ORIGINS["caffe_vgg16"].convert(arrays, foreign.shapes())
    assert found["backbone/fc6/kernel"].shape == (7, 7, 32, 8)
    assert not any("fc6/0" in path for path in found)


def test_a_file_with_batch_norm_does_not_fit():
    text = network.refusal(torchvision_test.make(batch_norm=True), model(), "head/*")
    assert text.startswith("17 missing: ")
    assert "56 extra: backbone/stage1/0/norm/scale, " in text


@real.needs(PARTIAL)
def test_the_first_three_blocks_initialise_a_deeplab():
    arrays, _ = weight_files.read(real.FOLDER / PARTIAL)
    full = model(3, 1024, width=64)
    rest = ("backbone/stage4/*", "backbone/stage5/*", "backbone/fc?/*", "head/*")
    found = network.load(arrays, full, *rest)
    assert str(found).startswith("14 tensors loaded, 1735488 numbers; 18 kept")
