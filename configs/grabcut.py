"""GrabCut: an object cut out from a box (Rother, Kolmogorov, Blake, SIGGRAPH 2004).

    python -m segjax.main --config=grabcut:bsds500
    python -m segjax.predict --config=grabcut --config.predict.box=20,30,200,300 \
        --input=photo.jpg --output=out/

Over a data set every human segment of 5 to 40 % of an image is a target, its bounding box given.
`gamma` is half the paper's: the best IoU of 5 to 100 on BSDS500 train, 0.72; 50 gave 0.67.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary(data=vocabulary.DATA_SETS, trains=False)


def get_config(words: str = ""):
    """The recipe; nothing is trained."""
    config = default.get_config()
    config.method = {"name": "grabcut", "components": 5, "iterations": 5, "gamma": 25.0}
    return vocabulary.apply(config, WORDS.read(words))
