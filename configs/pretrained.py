"""The network that a file of weights belongs to: labels photographs, or is trained on.

    segjax predict --config=pretrained --config.init.from=deeplabv3_resnet50.pth --input=photo.jpg
    segjax train --config=pretrained:folder --config.data.root=DIR --config.init.from=FILE

FILE is of any origin that `segjax weights show FILE` recognises, or a run folder. Backbone, head,
their options, preprocessing and classes are those of the weights; an option given beside them
(`--config.model.head.dropout=0.3`) changes theirs. If the data have other classes, the layers of
scores are drawn and everything else is kept.

The training is segjax's own, for fine-tuning; its schedule has not been measured: AdamW, poly,
rates ten times as high for the layers of heads. Norms follow the network of the weights. A
classifier's network, such as torchvision's VGG-16, scores its deepest stage.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

_NEEDS = "the weights whose network it is"

WORDS = vocabulary.Vocabulary()


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    config = default.get_config()
    config.init.network = "weights"
    config.init.needs = _NEEDS
    default.from_scratch(config)
    tuned = {
        "optim.lr": 1e-4,
        # All but the backbone: not every network has an auxiliary head, and a CRF may be added.
        "optim.parts": (("*/bias", 1.0, 0.0), ("[!b]*", 10.0, 1.0)),
    }
    default.change(config, tuned)
    return vocabulary.apply(config, WORDS.read(words), smoke={"init.needs": _NEEDS})
