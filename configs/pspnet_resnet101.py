"""PSPNet on ResNet-101 (Zhao, Shi, Qi, Wang, Jia: Pyramid Scene Parsing Network, CVPR 2017; its
training as in the authors' PyTorch release, semseg).

The network and training of configs/pspnet_resnet50.py at twice the depth. Published on ADE20K val,
one scale: 41.96 mIoU; re-trained by the release, at one scale and six with flips: ADE20K 43.10 and
44.15, VOC 2012 79.07 and 79.63, Cityscapes 78.63 and 79.29.
"""

from segjax.configs import pspnet_resnet50

WORDS = pspnet_resnet50.WORDS


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return pspnet_resnet50.recipe(101, WORDS.read(words))
