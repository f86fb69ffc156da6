"""K-means on the colours of pixels (Lloyd 1982; starts of Arthur and Vassilvitskii, SODA 2007).

python -m segjax.main --config=configs/kmeans.py:bsds500
python -m segjax.predict --config=configs/kmeans.py --input=photo.jpg --output=out/
"""

from configs import default


def get_config(variants: str = ""):
    """The recipe; nothing is trained."""
    config = default.get_config()
    config.method = {"name": "kmeans", "clusters": 8, "features": "lab", "init": "k-means++"}
    return default.apply_variants(config, variants)
