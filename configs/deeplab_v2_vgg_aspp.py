"""DeepLab v2 on VGG-16, ASPP-L (Chen, Papandreou, Kokkinos, Murphy, Yuille: DeepLab, PAMI 2018).

Four branches of fc6, fc7 and fc8 at rates 6, 12, 18 and 24, summed. Published on PASCAL VOC 2012
val, one scale: 68.96 mIoU before the CRF, 71.57 after it.

`voc2012,paper` is the paper's training: as configs/deeplab_v1_largefov.py has it, but 20,000 steps
of 10 images and a poly schedule. It starts from VGG-16's weights: `--config.init.from=FILE`. The
parameters of its CRF are those that are quoted for this network; the paper gives ranges. Elsewhere
weights are drawn: see there.
"""

from segjax.configs import deeplab_v1_largefov
from segjax.configuration import vocabulary

WORDS = vocabulary.Vocabulary(paper=("voc2012",))


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return deeplab_v1_largefov.recipe(
        (6, 12, 18, 24),
        WORDS.read(words),
        paper={
            "total_steps": 20_000,
            "batch_size": 10,
            "optim.schedule": "poly",
            "every_steps.eval": 2000,
            "every_steps.checkpoint": 2000,
            "eval.crf": {"preset": "deeplab_v1", "theta_alpha": 121.0},
        },
    )
