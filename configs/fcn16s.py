"""FCN-16s (Long, Shelhamer, Darrell: Fully Convolutional Networks, CVPR 2015; PAMI 2017).

As fcn8s.py in everything, its words `staged` and `heavy` too, with one skip, from pool4.
Published with `heavy`: VOC2011 val (736 images) 65.0 mIoU.
"""

from configs import fcn8s


def get_config(variants: str = ""):
    """The recipe; `variants` as in configs/fcn8s.py."""
    return fcn8s.recipe("fcn16s", variants)
