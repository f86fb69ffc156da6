"""Spectral clustering of the pixel grid (Shi and Malik, PAMI 2000; Ng, Jordan, Weiss, NIPS 2001).

    python -m segjax.main --config=spectral:bsds500
    python -m segjax.predict --config=spectral --input=photo.jpg --output=out/

The sigmas and the radius are those of the best covering on BSDS500's training images. The graph is
built at `side` pixels; for whole photographs `ncut_regions.py` is better and faster.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary(data=vocabulary.DATA_SETS, trains=False)


def get_config(words: str = ""):
    """The recipe; nothing is trained."""
    config = default.get_config()
    config.method = {
        "name": "spectral",
        "segments": 8,
        "radius": 3.0,
        "sigma_color": 2.0,
        "sigma_position": 3.0,
        "laplacian": "symmetric",
        "assign": "discretize",
        "side": 96,
    }
    return vocabulary.apply(config, WORDS.read(words))
