"""DeepLab v3 on MobileNetV2 with weights for PASCAL VOC's 21 classes, ready to label photographs.

    python -m segjax.predict --config=deeplab_v3_mobilenet_voc --input=photo.jpg

`$SEGJAX_WEIGHTS` holds deeplabv3_mobilenet_v2_pascal_dequantised.safetensors: a network trained by
the authors of DeepLab for 8-bit integers (Chen et al.: Rethinking Atrous Convolution for Semantic
Image Segmentation, 2017; Sandler et al.: MobileNetV2, CVPR 2018), its norms folded into the
convolutions. It was trained on images of 513 pixels a side: larger ones are best made smaller.
"""

from segjax.configs import default
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary(data=("voc2012", "folder", "lecture"), trains=False)


def get_config(words: str = ""):
    """The recipe; nothing is trained."""
    none = {"name": "none"}
    config = default.get_config()
    config.model = {
        "backbone": {"name": "mobilenet_v2", "norm": none, "width": 1.0, "output_stride": 16},
        "head": {
            "name": "deeplab_v3",
            "rates": (),
            "norm": none,
            "width": 256,
            "order": "pool_first",
            "align": "corners",
        },
        "aux": None,
    }
    config.data = {"name": "voc2012", "root": ""}
    config.init["from"] = "deeplabv3_mobilenet_v2_pascal_dequantised.safetensors"
    return vocabulary.apply(config, WORDS.read(words))
