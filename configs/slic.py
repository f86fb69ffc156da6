"""SLIC superpixels (Achanta et al., EPFL report 2010; PAMI 2012).

    python -m segjax.main --config=slic:bsds500
    python -m segjax.predict --config=slic --input=photo.jpg --output=out/

`adaptive` is SLICO, which sets every region's compactness by its own colours.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary(data=vocabulary.DATA_SETS, trains=False)


def get_config(words: str = ""):
    """The recipe; nothing is trained."""
    config = default.get_config()
    config.method = {"name": "slic", "regions": 400, "compactness": 10.0, "adaptive": False}
    return vocabulary.apply(config, WORDS.read(words))
