"""FCN-32s (Long, Shelhamer, Darrell: Fully Convolutional Networks, CVPR 2015; PAMI 2017).

As configs/fcn8s.py in everything, its word `heavy` too, without skips: the first of the three
stages. Published with `paper`: VOC2011 val (736 images) 63.6 mIoU.
"""

from segjax.configs import fcn8s
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary({"heavy": fcn8s.HEAVY}, paper=fcn8s.WORDS.paper)


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return fcn8s.recipe("fcn32s", WORDS.read(words))
