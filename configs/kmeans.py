"""K-means on the colours of pixels (Lloyd 1982; starts of Arthur and Vassilvitskii, SODA 2007).

python -m segjax.main --config=kmeans:bsds500
python -m segjax.predict --config=kmeans --input=photo.jpg --output=out/
"""

from segjax.configs import default
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary(data=vocabulary.DATA_SETS, trains=False)


def get_config(words: str = ""):
    """The recipe; nothing is trained."""
    config = default.get_config()
    config.method = {"name": "kmeans", "clusters": 8, "features": "lab", "init": "k-means++"}
    return vocabulary.apply(config, WORDS.read(words))
