"""CRF-RNN (Zheng, Jayasumana, Romera-Paredes, Vineet, Su, Du, Huang, Torr: Conditional Random
Fields as Recurrent Neural Networks, ICCV 2015) on FCN-8s.

FCN-8s is that of configs/fcn8s.py, cut alike. Its scores, at the image's size, go through 5
iterations of mean field in training and 10 afterwards; the weights of both kernels and the
compatibilities of all pairs of classes are trained with the network.

As in the paper FCN-8s is trained first, and then all of it, at a lower rate: this recipe starts
from the default run folder of configs/fcn8s.py under the same words (runs/fcn8s, runs/fcn8s-camvid;
another: `--config.init.from=DIR`). `scratch` draws all weights instead, with FCN-8s's rate and
steps and gradients cut to a norm of 5; so does `smoke`, which has no run to start from.

`heavy` is the paper's training: one whole image a step, summed loss, momentum 0.99, a fixed rate of
1e-13; the authors' published layer learns its kernel weights 10,000 and its compatibilities 1000
times as fast. The number of steps is FCN's, not stated by them.

`model.crf.vertices` is the room of the bilateral lattice, a pixel: photographs need less than 1 at
500 pixels, 1.1 at 240; scenes of 96 x 128 up to 2.0, and of `smoke`'s size 3.5.
"""

from configs import default, fcn8s


def get_config(variants: str = ""):
    """The recipe; `variants` as in configs/default.py, and `scratch` and `heavy`."""
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
        "vertices": 3.0,
    }
    words = [word for word in variants.split(",") if word]
    config.init["from"] = "-".join(["runs/fcn8s", *words])
    config.init.skip = ("crf/*",)
    config.total_steps = 400
    config.optim.lr = 0.005
    config.optim.warmup_steps = 20
    config.optim.parts = (("*/bias", 2.0, 0.0), ("crf/*", 1.0, 0.0))
    config.every_steps.eval = 100
    config.every_steps.checkpoint = 100
    drawn = {"init.from": "", "init.skip": ()}
    return default.apply_variants(
        config,
        variants,
        camvid=default.CAMVID
        | {
            "model.crf.vertices": 2.0,
            "total_steps": 400,
            "optim.lr": 0.002,
            "every_steps.eval": 100,
            "every_steps.checkpoint": 100,
        },
        voc2012={"model.crf.vertices": 2.0},
        folder={"augment.size": (192, 192)},
        smoke=fcn8s.SMOKE | drawn | {"model.crf.vertices": 6.0},
        scratch=drawn
        | {
            "total_steps": 1200 if "camvid" in words else 800,
            "optim.lr": 0.02 if "camvid" in words else 0.05,
            "optim.warmup_steps": 100 if "camvid" in words else 50,
            "optim.clip_norm": 5.0,
        },
        heavy=fcn8s.heavy("fcn8s", variants)
        | {
            "optim.lr": 1e-13,
            "optim.parts": (
                ("*/bias", 2.0, 0.0),
                ("crf/*_weights", 1e4, 1.0),
                ("crf/compatibility", 1e3, 1.0),
            ),
        },
    )
