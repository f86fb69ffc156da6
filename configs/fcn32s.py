"""FCN-32s (Long, Shelhamer, Darrell: Fully Convolutional Networks, CVPR 2015; PAMI 2017).

As fcn8s.py in everything, its word `heavy` too, without skips: the first of the three stages.
Published with `heavy`: VOC2011 val (736 images) 63.6 mIoU.
"""

from configs import fcn8s


def get_config(variants: str = ""):
    """The recipe; `variants` as in configs/fcn8s.py."""
    return fcn8s.recipe("fcn32s", variants)
