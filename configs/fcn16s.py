"""FCN-16s (Long, Shelhamer, Darrell: Fully Convolutional Networks, CVPR 2015; PAMI 2017).

As configs/fcn8s.py in everything, its words `staged` and `heavy` too, with one skip, from pool4.
Published with `paper`: VOC2011 val (736 images) 65.0 mIoU.
"""

from segjax.configs import fcn8s
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary(
    {"heavy": fcn8s.HEAVY, "staged": fcn8s.STAGED}, paper=fcn8s.WORDS.paper
)


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return fcn8s.recipe("fcn16s", WORDS.read(words))
