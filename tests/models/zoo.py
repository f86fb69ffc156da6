"""Narrow networks that cover every head and every backbone, for tests that hold for all."""

from segjax.models.backbones import resnet

_BATCH = {"name": "batch"}
_VGG = {"batch_norm": False, "width": 4, "fc_width": 8, "border": "same", "dropout": 0.5}
_ATROUS = {"fc_kernel": 3, "fc_width": 8, "width": 4, "dropout": 0.5}
_ASPP = {"rates": (2, 4, 6), "width": 8, "norm": _BATCH}

# ResNets of one block per stage compile in a third of the time and do not differ otherwise.
BASIC, BOTTLENECK = 10, 50_000
resnet.DEPTHS |= {BASIC: (1, 1, 1, 1), BOTTLENECK: (1, 1, 1, 1)}
_BASIC = {"name": "resnet", "depth": BASIC, "norm": _BATCH, "width": 4}
_BOTTLENECK = _BASIC | {"depth": BOTTLENECK}


def _aux(norm: dict) -> dict:
    return {"name": "conv", "stage": "stage4", "width": 6, "norm": norm}


NETWORKS = {
    "classifier": {
        "backbone": {"name": "googlenet", "width": 4, "dropout": 0.4},
        "head": {"name": "classifier"},
    },
    "fcn32s": {"backbone": {"name": "vgg16"} | _VGG, "head": {"name": "fcn32s"}},
    "fcn16s": {"backbone": {"name": "vgg16"} | _VGG, "head": {"name": "fcn16s"}},
    "fcn8s": {"backbone": _BASIC, "head": {"name": "fcn8s"}},
    "fcn8_lecture": {
        "backbone": {"name": "vgg16"} | _VGG,
        "head": {"name": "fcn8_lecture"},
    },
    "conv": {
        "backbone": _BOTTLENECK | {"output_stride": 8, "dilation_rule": "torchvision"},
        "head": {"name": "conv", "width": 8, "norm": _BATCH, "align": "half_pixel"},
        "aux": _aux(_BATCH),
    },
    "deeplab_v1": {
        "backbone": {"name": "vgg16_atrous", "rates": (12,), "average": True} | _ATROUS,
        "head": {"name": "deeplab_v1", "multi_scale": True},
    },
    "deeplab_v2_vgg": {
        "backbone": {"name": "vgg16_atrous", "rates": (6, 12, 18), "average": False} | _ATROUS,
        "head": {"name": "deeplab_v1"},
    },
    "deeplab_v2": {
        "backbone": _BOTTLENECK
        | {"norm": {"name": "frozen"}, "stride_in": "1x1", "output_stride": 8}
        | {"pool_rounding": "ceil"},
        "head": {"name": "deeplab_v2", "rates": (2, 3)},
        "multi_scale": {"scales": (1, 0.75, 0.5), "align": "corners"},
    },
    "deeplab_v3": {
        "backbone": _BOTTLENECK
        | {"stem": "deep", "stride_in": "last", "output_stride": 16, "multi_grid": (2,)},
        "head": {"name": "deeplab_v3"} | _ASPP,
    },
    "deeplab_v3_cascade": {
        "backbone": _BASIC | {"output_stride": 16, "cascade": 1, "norm": {"name": "group"}},
        "head": {"name": "classifier"},
    },
    "deeplab_v3_mobilenet": {
        "backbone": {"name": "mobilenet_v2", "norm": _BATCH, "width": 0.15, "output_stride": 16},
        "head": {"name": "deeplab_v3"} | _ASPP | {"rates": (), "align": "corners"},
    },
    "deeplab_v3plus": {
        "backbone": _BOTTLENECK | {"output_stride": 16},
        "head": {"name": "deeplab_v3plus", "fine_width": 3} | _ASPP,
    },
    "gcn": {
        "backbone": _BOTTLENECK,
        "head": {"name": "gcn", "taps": 5},
    },
    "segnet": {
        "backbone": {
            "name": "segnet_encoder",
            "depths": (1, 1, 2),
            "widths": (4, 6, 8),
            "kernel": 3,
            "norm": _BATCH,
        },
        "head": {"name": "segnet", "depths": (1, 1, 2), "kernel": 3, "norm": _BATCH},
    },
    "segnet_basic": {
        "backbone": {
            "name": "segnet_encoder",
            "depths": (1, 1),
            "widths": (5, 5),
            "kernel": 7,
            "norm": _BATCH,
            "local_norm": True,
            "dropout": 0.5,
            "dropped": ("stage2",),
            "dropped_before": ("stage1",),
        },
        "head": {
            "name": "segnet",
            "depths": (1, 1),
            "kernel": 7,
            "norm": _BATCH,
            "activation": False,
            "classifier": 1,
            "single_channel": True,
            "dropout": 0.5,
            "dropped": ("stage2",),
        },
    },
    "fcn_basic": {
        "backbone": {
            "name": "segnet_encoder",
            "depths": (1, 1),
            "widths": (5, 6),
            "kernel": 3,
            "norm": _BATCH,
        },
        "head": {"name": "fcn_basic"},
    },
    "bilinear": {
        "backbone": {
            "name": "segnet_encoder",
            "depths": (1,),
            "widths": (5,),
            "kernel": 3,
            "norm": _BATCH,
        },
        "head": {"name": "bilinear"},
    },
    "resnet_gcn": {
        "backbone": _BOTTLENECK | {"global_taps": 3},
        "head": {"name": "gcn", "taps": 3, "upsampling": "learned"},
    },
    "refinenet": {
        "backbone": _BOTTLENECK | {"norm": {"name": "frozen"}},
        "head": {"name": "refinenet", "width": 6, "blocks": 2},
    },
    "crf_rnn": {
        "backbone": _BASIC,
        "head": {"name": "fcn32s"},
        "aux": _aux(_BATCH),
        "crf": {"vertices": 6.0},
    },
    "pspnet": {
        "backbone": _BOTTLENECK | {"stem": "deep", "output_stride": 8},
        "head": {"name": "pspnet", "width": 8, "norm": _BATCH},
        "aux": _aux(_BATCH),
    },
}
NETWORKS = {name: {"aux": None} | network for name, network in NETWORKS.items()}
