"""The Global Convolutional Network on ResNet-50 (Peng, Zhang, Yu, Luo, Sun: Large Kernel Matters -
Improve Semantic Segmentation by Global Convolutional Network, CVPR 2017).

The network, words and training of configs/gcn_resnet152.py at a third of the depth: the backbone
that the paper holds against ResNet-GCN (`resnet_gcn`, published: 5.5 points of mIoU more for a
baseline without large kernels behind it, PASCAL VOC 2012 val).
"""

from configs import gcn_resnet152


def get_config(variants: str = ""):
    """The recipe; variants as in configs/default.py, `learned` and `resnet_gcn`."""
    return gcn_resnet152.recipe(50, variants)
