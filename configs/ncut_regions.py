"""Normalised cuts on a graph of SLIC regions (Shi and Malik, PAMI 2000).

python -m segjax.main --config=ncut_regions:bsds500
python -m segjax.predict --config=ncut_regions --input=photo.jpg --output=out/
"""

from segjax.configs import default
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary(data=vocabulary.DATA_SETS, trains=False)


def get_config(words: str = ""):
    """The recipe; nothing is trained."""
    config = default.get_config()
    config.method = {"name": "ncut_regions", "regions": 400}
    return vocabulary.apply(config, WORDS.read(words))
