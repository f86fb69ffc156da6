"""SLIC superpixels (Achanta et al., EPFL report 2010; PAMI 2012).

    python -m segjax.main --config=configs/slic.py:bsds500
    python -m segjax.predict --config=configs/slic.py --input=photo.jpg --output=out/

`adaptive` is SLICO, which sets every region's compactness by its own colours.
"""

from configs import default


def get_config(variants: str = ""):
    """The recipe; nothing is trained."""
    config = default.get_config()
    config.method = {"name": "slic", "regions": 400, "compactness": 10.0, "adaptive": False}
    return default.apply_variants(config, variants)
