"""A classifier of 1000 classes, run fully convolutionally (Long et al., CVPR 2015, figure 2).

BVLC GoogLeNet with its ImageNet weights, the average pooling dropped: a map of scores for each of
the 1000 classes, for an image of any size.

    python -m segjax.predict --config=imagenet_heatmap --input=photo.jpg --save=heatmaps

`$SEGJAX_WEIGHTS` holds googlenet_bvlc.safetensors and imagenet_classes.txt. The classifier knows
objects that fill its 224 pixels: images are first brought to a short side of 256.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary(data=("scenes", "folder", "lecture"), trains=False)


def get_config(words: str = ""):
    """The recipe; nothing is trained."""
    config = default.get_config()
    config.model = {
        "backbone": {"name": "googlenet", "width": 64, "dropout": 0.4},
        "head": {"name": "classifier"},
        "aux": None,
    }
    config.init["from"] = "googlenet_bvlc.safetensors"
    config.predict.classes = "imagenet_classes.txt"
    config.predict.short_side = 256
    config.predict.window = 7
    return vocabulary.apply(config, WORDS.read(words))
