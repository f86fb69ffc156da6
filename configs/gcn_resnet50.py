"""The Global Convolutional Network on ResNet-50 (Peng, Zhang, Yu, Luo, Sun: Large Kernel Matters -
Improve Semantic Segmentation by Global Convolutional Network, CVPR 2017).

The network, words and training of configs/gcn_resnet152.py at a third of the depth: the backbone
that the paper holds against ResNet-GCN (`resnet_gcn`, published: 5.5 points of mIoU more for a
baseline without large kernels behind it, PASCAL VOC 2012 val).
"""

from segjax.configs import gcn_resnet152

WORDS = gcn_resnet152.WORDS


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return gcn_resnet152.recipe(50, WORDS.read(words))
