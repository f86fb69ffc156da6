"""Efficient graph-based segmentation (Felzenszwalb and Huttenlocher, IJCV 2004).

    python -m segjax.main --config=configs/felzenszwalb.py:bsds500
    python -m segjax.predict --config=configs/felzenszwalb.py --input=photo.jpg --output=out/

`form`: "exact" goes through the edges one by one, "parallel" is made for accelerators; "auto"
takes the first on a CPU.
"""

from configs import default


def get_config(variants: str = ""):
    """The recipe; nothing is trained."""
    config = default.get_config()
    config.method = {
        "name": "felzenszwalb",
        "scale": 500.0,
        "sigma": 0.8,
        "min_size": 100,
        "form": "auto",
    }
    return default.apply_variants(config, variants)
