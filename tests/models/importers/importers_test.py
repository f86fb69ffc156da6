import numpy as np
import pytest

from segjax.errors import InputError
from segjax.models import importers
from segjax.models.importers import keras, weight_files
from tests.models.importers import foreign, keras_test, real, torchvision_test

BN = {"batch_norm": True, "fc_batch_norm": False}
WANTED = {"backbone/a": (2, 3), "backbone/b": (4,), "head/c": (5,)}


def found(**changes: np.ndarray) -> dict[str, np.ndarray]:
    """Arrays that fit WANTED, with `changes` by the last letter of the path; None removes one."""
    arrays = {path: np.full(shape, 2.5) for path, shape in WANTED.items()}
    for path in WANTED:
        if path[-1] in changes:
            arrays[path] = changes.pop(path[-1])
    arrays |= changes
    return {path: array for path, array in arrays.items() if array is not None}


def match(arrays: dict[str, np.ndarray], *skip: str, **options) -> importers.Match:
    return importers.match(arrays, WANTED, skip, where="w.npz", **options)


def refusal(arrays: dict[str, np.ndarray], *skip: str) -> str:
    with pytest.raises(InputError) as told:
        match(arrays, *skip)
    assert "\n" not in str(told.value)
    return str(told.value)


def test_tensors_that_all_fit_are_float32_and_counted():
    got = match(found(b=np.arange(4)))
    assert {path: array.dtype for path, array in got.arrays.items()} == dict.fromkeys(
        WANTED, np.dtype(np.float32)
    )
    assert str(got) == "3 tensors loaded, 15 numbers"


def test_one_error_lists_all_tensors_that_do_not_fit():
    text = refusal(found(a=np.zeros((3, 2)), b=None, c=np.full(5, np.nan), d=np.zeros(1)))
    assert text.startswith(
        "w.npz does not fit the network: 1 missing: backbone/b; 1 extra: d; "
        "1 misshapen: backbone/a [3, 2] for [2, 3]; 1 not finite: head/c. "
    )
    assert "config.init.skip" in text


def test_the_advice_names_the_parts_that_do_not_match():
    def advice(**paths: np.ndarray) -> str:
        wanted = dict.fromkeys(("backbone/a/bias", "head/s/bias", "aux/s/bias"), (2,))
        arrays = {"backbone/a/bias": np.zeros(2)} | paths
        with pytest.raises(InputError) as told:
            importers.match(arrays, wanted, (), where="w.npz")
        return str(told.value)

    both = {f"{part}/s/bias": np.zeros(3) for part in ("head", "aux")}
    assert "here ('head/*', 'aux/*') for another head" in advice(**both)
    side = {"head/s/bias": np.zeros(2), "aux/s/bias": np.zeros(3)}
    assert "here ('aux/*',) for another head" in advice(**side)


def test_many_names_are_cut_short():
    text = refusal(found(**{f"d{i}": np.zeros(1) for i in range(9)}))
    assert "9 extra: d0, d1, d2, d3, d4, d5 and 3 more." in text


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39])
def test_numbers_that_are_not_finite_in_float32_are_refused_unless_skipped(value):
    broken = np.array([1, 2, 3, 4, value])
    assert "1 not finite: head/c." in refusal(found(c=broken))
    got = match(found(c=broken), "head/*")
    assert got.kept == got.left == ["head/c"]
    assert list(got.arrays) == ["backbone/a", "backbone/b"]


def test_skips_apply_to_file_and_network_and_are_reported():
    got = match(found(b=None, d=np.zeros(9)), "backbone/b", "d", unused={"e": "a counter"})
    assert str(got) == (
        "2 tensors loaded, 11 numbers; 1 kept as drawn (init.skip): backbone/b; "
        "1 left in the file (init.skip): d; 1 not used: e (a counter)"
    )
    assert "1 missing: backbone/b. " in refusal(found(b=None), "backbone/a")


def test_a_skip_that_fits_nothing_is_refused():
    text = refusal(found(), "head/*", "haed/*")
    assert text == ("config.init.skip: 'haed/*' fits no tensor; such are backbone/a, head/c.")


def test_a_file_of_unknown_origin_is_refused_with_the_known_origins():
    with pytest.raises(InputError) as told:
        importers.origin_of({"fire2/squeeze1x1_filter": np.ones(1)}, "w.npz")
    assert str(told.value) == (
        "w.npz: its tensors (fire2/squeeze1x1_filter) are of no known origin; known: "
        f"{', '.join(importers.ORIGINS)}."
    )


def test_segjax_s_names_are_recognised():
    assert importers.origin_of({"backbone/a": np.ones(1)}, "w") == "segjax"
    assert importers.ORIGINS["segjax"].preprocess is None


@pytest.mark.parametrize(
    ("batch_norm", "network", "reason"),
    [
        (False, BN, r"52 missing: backbone/stage1/0/norm/bias.*13 extra: .*/0/conv/bias"),
        (True, {}, r"13 missing: backbone/stage1/0/conv/bias.*52 extra: .*/0/norm/"),
        (True, {"batch_norm": True}, r"8 missing: backbone/norm6/.*2 extra: backbone/fc6/bias"),
    ],
)
def test_weights_with_and_without_batch_norm_are_told_apart(batch_norm, network, reason):
    with pytest.raises(InputError, match=reason):
        foreign.load(torchvision_test.make(batch_norm=batch_norm), **network)


def test_another_number_of_classes_is_refused_and_can_be_skipped():
    arrays = keras_test.make()
    message = r"2 misshapen: head/classifier/\w+ .*\[1, 1, 8, 5\] for \[1, 1, 8, 7\].*'head/\*'"
    with pytest.raises(InputError, match=message):
        foreign.load(arrays, classes=7)
    got = foreign.load(arrays, classes=7, skip=("head/*",))
    assert set(got.kept) == set(got.left)
    assert set(got.kept) == {"head/classifier/bias", "head/classifier/kernel"}


def test_a_classifier_initialises_a_segmenter_except_for_its_head():
    arrays = keras_test.make()
    with pytest.raises(InputError, match="6 missing: head/score_.*2 extra: head/classifier/"):
        foreign.load(arrays, head="fcn8s")
    got = foreign.load(arrays, head="fcn8s", skip=("head/*",))
    assert len(got.arrays) == 30
    assert len(got.kept) == 6
    assert len(got.left) == 2


def test_a_wrong_origin_fits_nothing():
    with pytest.raises(InputError, match="32 missing: backbone/.*32 extra: features.0.weight"):
        foreign.load(torchvision_test.make(batch_norm=False), origin="keras_vgg16")


PARTIAL = "vgg16_block1_block3.safetensors"


@real.needs(PARTIAL)
def test_the_partial_vgg16_is_loaded_if_its_gaps_are_skipped():
    arrays, _ = weight_files.read(real.FOLDER / PARTIAL)
    wanted = dict(foreign.shapes(width=64, fc_width=4096, classes=1000))
    assert importers.origin_of(arrays, PARTIAL) == "keras_vgg16"
    converted, unused = keras.vgg16(arrays, wanted)
    with pytest.raises(InputError, match="18 missing: backbone/fc6/bias, ") as told:
        importers.match(converted, wanted, (), where=PARTIAL)
    assert "extra" not in str(told.value)
    skip = ("backbone/stage[45]/*", "backbone/fc?/*", "head/*")
    got = importers.match(converted, wanted, skip, where=PARTIAL, unused=unused)
    assert len(got.arrays) == len(arrays) == 14
    assert sum(array.size for array in got.arrays.values()) == 1_735_488
    assert len(got.kept) == 18
    assert not got.left + list(got.unused)
    np.testing.assert_allclose(  # as the README of the weights has them, rounded to float16
        got.arrays["backbone/stage1/0/conv/kernel"][0, 0, 0, :3],
        [0.42947057, 0.11727387, 0.03401296],
        rtol=5e-4,
    )
