"""CRF-RNN (Zheng, Jayasumana, Romera-Paredes, Vineet, Su, Du, Huang, Torr: Conditional Random
Fields as Recurrent Neural Networks, ICCV 2015) on FCN-8s.

FCN-8s is that of configs/fcn8s.py, cut alike. Its scores, at the image's size, go through 5
iterations of mean field in training and 10 afterwards; the weights of both kernels and the
compatibilities of all pairs of classes are trained with the network.

As in the paper FCN-8s is trained first, and then all of it, at a lower rate: this recipe starts
from the default run folder of configs/fcn8s.py under the same words (runs/fcn8s,
runs/fcn8s-camvid-small; another: `--config.init.from=DIR`). `scratch` draws all weights instead,
with FCN-8s's rate and steps and gradients cut to a norm of 5; so does `smoke`, which has no run to
start from. Without `small` a real data set gets segjax's own schedule, not measured at full size.

`paper`, on `voc2012`, and `heavy`, on any data set, are the paper's training: one whole image a
step, summed loss, momentum 0.99, a fixed rate of 1e-13; the authors' published layer learns its
kernel weights 10,000 and its compatibilities 1000 times as fast. The number of steps is FCN's, not
stated by them.

`model.crf.vertices` is the room of the bilateral lattice, a pixel: photographs need less than 1 at
500 pixels, 1.1 at 240; scenes of 96 x 128 up to 2.0, and of `smoke`'s size 3.5.
"""

from segjax.configs import default, fcn8s
from segjax.configuration import vocabulary

_RATES = {
    "optim.lr": 1e-13,
    "optim.parts": (
        ("*/bias", 2.0, 0.0),
        ("crf/*_weights", 1e4, 1.0),
        ("crf/compatibility", 1e3, 1.0),
    ),
}

WORDS = vocabulary.Vocabulary(
    {"heavy": fcn8s.HEAVY, "scratch": "draws all weights"}, paper=("voc2012",)
)


def get_config(words: str = ""):
    """The recipe under these words: see `WORDS`."""
    return _recipe(WORDS.read(words))


def _recipe(words: vocabulary.Words):
    config = fcn8s.on_scenes("fcn8s")
    config.model.crf = {
        "iterations": 5,
        "test_iterations": 10,
        "theta_alpha": 160.0,
        "theta_beta": 3.0,
        "theta_gamma": 3.0,
        "w1": 5.0,
        "w2": 3.0,
        "spatial": "lattice",
        "vertices": 3.0 if words.data == "scenes" else 2.0,
    }
    config.init["from"] = words.run_folder("fcn8s")
    config.init.skip = ("crf/*",)
    config.total_steps = 400
    config.optim.lr = 0.005
    config.optim.warmup_steps = 20
    config.optim.parts = (("*/bias", 2.0, 0.0), ("crf/*", 1.0, 0.0))
    config.every_steps.eval = 100
    config.every_steps.checkpoint = 100
    drawn = {"init.from": "", "init.skip": ()}
    scratch = drawn | {"optim.clip_norm": 5.0}
    if "heavy" not in words and words.size != "paper":
        scratch |= _fcn8s_schedule(words)
    return vocabulary.apply(
        config,
        words,
        full=fcn8s.FULL
        | {
            "total_steps": default.FULL[words.data]["total_steps"] // 2,
            "optim.lr": 1e-4,
            "optim.parts": (*default.ADAMW["optim.parts"], ("crf/*", 1.0, 0.0)),
        }
        if words.size == "full"
        else None,
        small={
            "camvid": default.CAMVID_SMALL
            | {
                "total_steps": 400,
                "optim.lr": 0.002,
                "every_steps.eval": 100,
                "every_steps.checkpoint": 100,
            },
        },
        paper={"voc2012": fcn8s.heavy("fcn8s", words) | _RATES | {"train_split": "trainaug"}},
        own={"heavy": fcn8s.heavy("fcn8s", words) | _RATES, "scratch": scratch},
        smoke=fcn8s.SMOKE | drawn | {"model.crf.vertices": 6.0},
    )


def _fcn8s_schedule(words: vocabulary.Words) -> dict:
    """Steps and rate of FCN-8s, whose weights are drawn, too."""
    if words.size == "full":
        steps, rate = default.FULL[words.data]["total_steps"], default.ADAMW["optim.lr"]
        warmup = default.FULL[words.data]["optim.warmup_steps"]
    else:
        steps, rate, warmup = (1200, 0.02, 100) if words.data == "camvid" else (800, 0.05, 50)
    return {"total_steps": steps, "optim.lr": rate, "optim.warmup_steps": warmup}
