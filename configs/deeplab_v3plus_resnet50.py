"""DeepLab v3+ on ResNet-50 (Chen, Zhu, Papandreou, Schroff, Adam: Encoder-Decoder with Atrous
Separable Convolution for Semantic Image Segmentation, ECCV 2018).

The encoder of configs/deeplab_v3_resnet101.py at half the depth, without multi-grid, and the
paper's decoder: conv2_x brought to 48 channels, two 3 x 3 convolutions of 256. Training and words
are those of the v3 recipe but for `cascade`, as the paper has them. Published with ResNet-101 on
PASCAL VOC 2012 val, output stride 16, one scale: 78.85 mIoU; nothing with ResNet-50.
"""

from segjax.configs import deeplab_v3_resnet101
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary(deeplab_v3_resnet101.FROZEN, paper=deeplab_v3_resnet101.WORDS.paper)


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    config = deeplab_v3_resnet101.recipe(
        50, WORDS.read(words), head={"name": "deeplab_v3plus", "fine": "stage2", "fine_width": 48}
    )
    config.model.backbone.multi_grid = (1,)
    return config
