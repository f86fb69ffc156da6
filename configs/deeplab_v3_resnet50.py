"""DeepLab v3 on ResNet-50 (Chen, Papandreou, Schroff, Adam: Rethinking Atrous Convolution for
Semantic Image Segmentation, 2017).

The network, words and training of configs/deeplab_v3_resnet101.py, at half the depth. The paper
gives ResNet-50 in its cascaded form alone (output stride 16: 73.88 mIoU on PASCAL VOC 2012 val);
re-trained by others with ASPP at output stride 8: 77.68 (mmsegmentation).
"""

from segjax.configs import deeplab_v3_resnet101

WORDS = deeplab_v3_resnet101.WORDS


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return deeplab_v3_resnet101.recipe(50, WORDS.read(words))
