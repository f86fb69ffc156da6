"""Normalised cuts on a graph of SLIC regions (Shi and Malik, PAMI 2000).

python -m segjax.main --config=configs/ncut_regions.py:bsds500
python -m segjax.predict --config=configs/ncut_regions.py --input=photo.jpg --output=out/
"""

from configs import default


def get_config(variants: str = ""):
    """The recipe; nothing is trained."""
    config = default.get_config()
    config.method = {"name": "ncut_regions", "regions": 400}
    return default.apply_variants(config, variants)
