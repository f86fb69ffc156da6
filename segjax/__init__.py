"""segjax: image segmentation that runs whole on the accelerator."""

__version__ = "0.1.0"
