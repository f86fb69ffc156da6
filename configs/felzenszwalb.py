"""Efficient graph-based segmentation (Felzenszwalb and Huttenlocher, IJCV 2004).

    python -m segjax.main --config=felzenszwalb:bsds500
    python -m segjax.predict --config=felzenszwalb --input=photo.jpg --output=out/

`scale`, `sigma` and `min_size` are those of the best covering on BSDS500's training images; the
paper's own pictures have sigma 0.8 and more and smaller regions. `form`: "exact" goes through the
edges one by one, "parallel" is made for accelerators; "auto" takes the first on a CPU.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary(data=vocabulary.DATA_SETS, trains=False)


def get_config(words: str = ""):
    """The recipe; nothing is trained."""
    config = default.get_config()
    config.method = {
        "name": "felzenszwalb",
        "scale": 350.0,
        "sigma": 1.4,
        "min_size": 1000,
        "form": "auto",
    }
    return vocabulary.apply(config, WORDS.read(words))
