"""Recognition of a file's origin by its names."""

import pytest

from segjax.models import importers
from tests.models.importers import (
    caffe_segnet_test,
    caffe_test,
    deeplab_pytorch_test,
    drsleep_refinenet_test,
    keras_mobilenet_test,
    keras_test,
    semseg_test,
    tflite_test,
    torchvision_resnet_test,
    torchvision_test,
)

FILES = {
    "caffe_segnet": caffe_segnet_test.segnet,
    "caffe_vgg16": caffe_test.make,
    "deeplab_pytorch": lambda: deeplab_pytorch_test.deeplab(50),
    "drsleep_refinenet": lambda: drsleep_refinenet_test.refinenet(50),
    "keras_mobilenet_v2": keras_mobilenet_test.mobilenet,
    "keras_vgg16": keras_test.make,
    "semseg_pspnet": lambda: semseg_test.pspnet(50),
    "semseg_resnet": lambda: semseg_test.resnet(50),
    "tflite_deeplab_v3": tflite_test.deeplab,
    "torchvision_deeplab_v3": lambda: torchvision_resnet_test.segmenter("deeplab_v3"),
    "torchvision_fcn": lambda: torchvision_resnet_test.segmenter("fcn"),
    "torchvision_resnet": lambda: torchvision_resnet_test.resnet(50),
    "torchvision_vgg16": lambda: torchvision_test.make(batch_norm=False),
}


@pytest.mark.parametrize("name", FILES)
def test_exactly_one_origin_recognises_a_file(name):
    arrays = FILES[name]()
    assert [n for n, origin in importers.ORIGINS.items() if origin.recognise(arrays)] == [name]
