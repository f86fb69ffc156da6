"""Bayesian SegNet (Kendall, Badrinarayanan, Cipolla: Bayesian SegNet: Model Uncertainty in Deep
Convolutional Encoder-Decoder Architectures for Scene Understanding, BMVC 2017).

SegNet with dropout of a half behind the poolings of stages 3 to 5 and behind the decoders of these
stages; it stays on when images are labelled: the mean of the softmax over 8 passes labels, its
variance is the uncertainty (`--protocol="bayesian_segnet, samples=40"` for more, and
`--protocol=single` for one pass without dropout). Published on CamVid test: 86.9 global accuracy,
63.1 mIoU.

`basic` is Bayesian SegNet-Basic, of stages 3 and 4; published: 81.6 global and 70.5 class accuracy,
55.8 mIoU.
`camvid,paper` is the tutorial's training: 60,000 steps (`basic` 10,000), else as configs/segnet.py,
the encoder from VGG-16's weights.
"""

from segjax.configs import segnet, segnet_basic
from segjax.configuration import vocabulary

_DEEP = ("stage3", "stage4", "stage5")


WORDS = vocabulary.Vocabulary({"basic": "on SegNet-Basic"}, paper=("camvid",))


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return _recipe(WORDS.read(words))


def _recipe(words: vocabulary.Words):
    if "basic" in words:
        config = segnet_basic.recipe(words, dropped=("stage3", "stage4"))
    else:
        config = segnet.recipe(words, dropped=_DEEP, paper_steps=60_000)
    config.eval.protocol = "bayesian_segnet"
    return config
