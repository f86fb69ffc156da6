import json

import pytest

from segjax.errors import InputError
from segjax.evaluation import views
from segjax.evaluation.views import Views, parse


def test_presets_are_what_their_sources_say():
    assert set(views.PRESETS) == {
        "bayesian_segnet",
        "single",
        "fcn",
        "deeplab_v2_msc",
        "deeplab_v3_ms_flip",
        "pspnet_ms_flip",
        "refinenet_ms",
    }
    assert parse("single").plain
    assert parse("fcn").plain
    assert parse("fcn").bucket == 1
    psp = parse("pspnet_ms_flip")
    assert psp.scales == (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
    assert psp.flip
    assert psp.tile == (473, 473)
    assert psp.stride == pytest.approx(2 / 3)
    assert (psp.softmax, psp.fusion) == ("before_resize", "mean_probability")
    assert psp.linear
    v3 = parse("deeplab_v3_ms_flip")
    assert v3.scales == psp.scales
    assert v3.flip
    assert not any(v3.tile)
    assert not v3.linear
    assert parse("deeplab_v2_msc").fusion == "max_logit"
    assert parse("refinenet_ms").scales == (0.4, 0.6, 0.8, 1.0, 1.2)
    assert not any(parse(name).flip for name in ("deeplab_v2_msc", "refinenet_ms"))


def test_keys_after_a_preset_change_it_and_mark_its_name():
    changed = parse("pspnet_ms_flip, tile=(713, 713), long_side=2048")
    assert changed.tile == (713, 713)
    assert changed.long_side == 2048
    assert changed.scales == parse("pspnet_ms_flip").scales
    assert changed.name.startswith("pspnet_ms_flip-")
    other = parse("pspnet_ms_flip,long_side=1024,tile=(713, 713)")
    assert changed.name != other.name
    assert changed == parse("pspnet_ms_flip,long_side=2048,tile=(713,713)")
    assert parse("single, flip=False") == parse("single")  # what it is already


@pytest.mark.parametrize("name", views.PRESETS)
def test_views_survive_json(name):
    one = parse(name)
    assert Views.from_json(json.loads(json.dumps(one.to_json()))) == one


def test_samples_are_passes_of_one_look_at_the_whole_image():
    with pytest.raises(InputError, match="samples.*single view"):
        parse("single, samples=2, flip=True")
    with pytest.raises(InputError, match="samples.*whole number"):
        parse("single, samples=1.5")
    assert parse("bayesian_segnet").samples == 8
    assert parse("bayesian_segnet").plain


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("pspnet_ms_flop", 'Did you mean "pspnet_ms_flip"'),
        ("single, scale=(1.0,)", 'Did you mean "scales"'),
        ("single, name='x'", "unknown 'name'"),
        ("single, scales=(0.0,)", "above 0"),
        ("single, scales=1.0", "a tuple"),
        ("single, scales=()", "a tuple"),
        ("single, tile=(3,)", "two whole numbers"),
        ("single, tile=(3, 0)", "both sides"),
        ("single, stride=0", "above 0 and at most 1"),
        ("single, stride=1.5", "above 0 and at most 1"),
        ("single, flip='yes'", "known: False, True"),
        ("single, tile=(9, 9), meet='scale_1'", "only on whole images"),
        ("single, fusion='sum'", "mean_probability"),
        ("single, resize='transposed'", "half_pixel"),
        ("single, long_side=-1", "whole number"),
        ("single, long_side=4, short_side=(1, 2)", "only one"),
        ("single, short_side=(5, 2)", "give the least first"),
        ("single, bucket=-1", "bucket"),
        ("single, flip", "key=value"),
        ("single, flip=__import__('os')", "key=value"),
        ("single, flip=True)", "key=value"),
    ],
)
def test_what_is_wrong_is_said(text, said):
    with pytest.raises(InputError, match=said.replace("(", r"\(").replace(")", r"\)")):
        parse(text)


def test_sizes_of_views():
    round_, floor, corners = (parse(f"single, size='{s}'") for s in views.SIZES)
    assert [p.scaled(0.5, (9, 11), (9, 11)) for p in (round_, floor, corners)] == [
        (4, 6),  # Python rounds halves to even
        (4, 5),
        (5, 6),
    ]
    assert corners.scaled(1.25, (513, 513), (513, 513)) == (641, 641)
    assert round_.scaled(0.5, (9, 11), (4, 6)) == (2, 3)  # of what the network was trained to see
    assert round_.scaled(0.1, (3, 3), (3, 3)) == (1, 1)
    long = parse("single, long_side=512")
    assert long.scaled(1.0, (375, 500), (375, 500)) == (384, 512)
    assert long.scaled(1.25, (500, 375), (500, 375)) == (640, 480)
    short = parse("single, short_side=(450, 800)")
    assert short.base_size((375, 500), (0, 0)) == (450, 600)
    assert short.base_size((500, 600), (0, 0)) == (500, 600)
    assert short.base_size((1000, 1600), (0, 0)) == (800, 1280)
