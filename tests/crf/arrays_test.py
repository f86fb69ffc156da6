"""What the functions of the CRF do with arrays of any type, shape and value.

Either it is what they make of the same numbers in their plain type, or one clear line.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import contracts
from segjax.crf import DenseCrf, kernels, mean_field
from segjax.errors import InputError
from tests.crf import made

SIZE, K = (4, 5), 3
CRF = DenseCrf(3.0, 5.3, 29.0, 1.5, 1.37, iterations=1)
ROOM = 6 * SIZE[0] * SIZE[1]
IMAGE, LOGITS = made.photo(SIZE), np.round(made.scores(SIZE, K))
HALF = np.arange(20).reshape(SIZE) < 12


@functools.partial(jax.jit, static_argnames="form")
def _program(image, logits, mask=None, known=None, form="one"):
    if form == "batch":
        return CRF.batch(image, logits, mask, capacity=ROOM)[0]
    return CRF(image, logits, capacity=ROOM, mask=mask, known=known)[0]


@pytest.fixture
def stopped(monkeypatch):
    """Ends a CRF before its kernels are built; returns the arrays that it would take."""

    class Passed(Exception):
        pass

    def stop(*args, **options):
        raise Passed

    monkeypatch.setattr(kernels, "spatial", stop)

    passed = []

    def noted(check):
        def call(*args, **options):
            passed.append(check(*args, **options))
            return passed[-1]

        return call

    for name in ("image", "scores"):
        monkeypatch.setattr(contracts, name, noted(getattr(contracts, name)))

    def run(image, logits, mask=None, known=None):
        passed.clear()
        with pytest.raises(Passed):
            CRF(image, logits, capacity=ROOM, mask=mask, known=known)
        return [*passed]

    return run


def test_the_same_numbers_in_another_type_are_the_same(stopped):
    plain = stopped(IMAGE, LOGITS)
    assert [x.dtype for x in plain] == [jnp.uint8, jnp.float32]
    for image, logits in (
        (IMAGE.astype(np.float16), LOGITS.astype(np.float16)),
        (IMAGE.astype(np.float64), LOGITS.astype(np.float64)),
        (IMAGE.astype(">f4"), LOGITS.astype(np.int8)),
        (jnp.asarray(IMAGE, jnp.bfloat16), jnp.asarray(LOGITS, jnp.bfloat16)),
        (IMAGE.tolist(), LOGITS.tolist()),
        (np.asfortranarray(IMAGE), np.asfortranarray(LOGITS)),
    ):
        for found, expected in zip(stopped(image, logits), plain, strict=True):
            np.testing.assert_array_equal(found, expected)


def test_floats_and_grey_images_give_what_bytes_and_three_channels_give():
    grey = np.stack([IMAGE[..., 0]] * 3, -1)
    expected = np.asarray(_program(grey, LOGITS))
    batch = _program(np.stack([grey[..., 0]] * 2), np.stack([LOGITS] * 2), form="batch")
    alone = [_program(x, LOGITS) for x in (grey.astype(np.float32), grey[..., 0])]
    for found in (*alone, *batch):  # each program rounds in its own way
        np.testing.assert_allclose(found, expected, atol=1e-5)


def odd(x: np.ndarray, value: float) -> np.ndarray:
    out = x.astype(np.float32)
    out[1, 2] = value
    return out


STATIC = [
    ({"image": IMAGE.astype(np.int32)}, "image: got int32; allowed: uint8, or floats of 0 to 255"),
    ({"image": IMAGE.astype(np.uint16)}, "image: got uint16; allowed: uint8, or floats"),
    ({"image": IMAGE > 9}, "image: got bool; allowed: uint8"),
    (
        {"image": np.dstack([IMAGE] * 2)[..., :4]},
        r"image: got shape \(4, 5, 4\); allowed: \[4, 5, 3",
    ),
    ({"image": IMAGE[:3]}, r"image: got shape \(3, 5, 3\); allowed: \[4, 5, 3\] or \[4, 5\]"),
    ({"logits": LOGITS[..., 0]}, r"logits: got shape \(4, 5\); allowed: \[H, W, K\]"),
    ({"logits": LOGITS[:0]}, r"logits: got shape \(0, 5, 3\); allowed: .*at least 1"),
    ({"logits": LOGITS.astype(complex)}, "logits: got complex128; allowed: integers or floats"),
    ({"mask": HALF.astype(np.uint8)}, "mask: got uint8; allowed: bool"),
    ({"mask": HALF.astype(np.float32)}, "mask: got float32; allowed: bool"),
    ({"mask": HALF[:, :4]}, r"mask: got shape \(4, 4\); allowed: \[4, 5\]"),
    ({"known": HALF.astype(np.int32)}, "known: got int32; allowed: bool"),
]
VALUES = [
    ({"image": odd(IMAGE, np.nan)}, "image: got nan; allowed: floats of 0 to 255"),
    ({"image": odd(IMAGE, np.inf)}, "image: got inf; allowed: floats of 0 to 255"),
    ({"image": odd(IMAGE, -1)}, r"image: got floats of -1 to \d+; allowed: 0 to 255"),
    ({"image": IMAGE / 255}, "allowed: 0 to 255, not 0 to 1"),
    (
        {"logits": odd(LOGITS, np.nan)},
        "logits: got a pixel whose largest is nan; allowed: a finite",
    ),
    ({"logits": odd(LOGITS, np.inf)}, "logits: got a pixel whose largest is inf; allowed"),
    ({"logits": odd(LOGITS, -np.inf)}, "logits: got a pixel whose largest is -inf; allowed"),
]


def _refused(run, given, text):
    with pytest.raises(InputError, match=text) as refused:
        run(**{"image": IMAGE, "logits": LOGITS} | given)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("given", "text"), STATIC)
def test_what_does_not_fit_is_refused_traced_or_not(given, text):
    call = functools.partial(CRF, capacity=ROOM)
    _refused(call, given, text)
    if "complex" not in text:
        _refused(lambda **arrays: jax.eval_shape(call, **arrays), given, text)


@pytest.mark.parametrize(("given", "text"), VALUES)
def test_values_that_spread_are_refused_where_they_are_known(given, text):
    _refused(functools.partial(CRF, capacity=ROOM), given, text)
    pairs = {"image": IMAGE[None], "logits": LOGITS[None]} | {k: x[None] for k, x in given.items()}
    _refused(functools.partial(CRF.batch, capacity=ROOM), pairs, text)


def test_values_outside_of_the_mask_are_anyones(stopped):
    there = np.ones(SIZE, bool)
    there[1, 2] = False
    for fill in (np.nan, np.inf, -1):
        stopped(odd(IMAGE, fill), odd(LOGITS, fill), mask=there)
    stopped(IMAGE, odd(LOGITS, np.nan), known=there)
    with pytest.raises(InputError, match="image: got nan"):
        CRF(odd(IMAGE, np.nan), LOGITS, capacity=ROOM, known=there)


def test_a_class_may_be_forbidden(stopped):
    logits = LOGITS.copy()
    logits[1, 2, 0] = -np.inf
    np.testing.assert_array_equal(stopped(IMAGE, logits)[1], logits)


def test_kernels_take_what_a_crf_takes():
    bilateral = functools.partial(
        kernels.bilateral, theta_alpha=5.0, theta_beta=9.0, capacity=ROOM, normalization="after"
    )
    for given, text in (*STATIC, *VALUES):
        if "logits" in given or "known" in given or text.startswith(r"image: got shape \(3"):
            continue
        with pytest.raises(InputError, match=text.replace("[4, 5", "[H, W").partition("; ")[0]):
            bilateral(**{"image": IMAGE} | given)
    spatial = functools.partial(kernels.spatial, SIZE, 3.0, by="lattice", normalization="after")
    for mask in (HALF.astype(np.uint8), HALF[:3]):
        with pytest.raises(InputError, match="mask: got .*; allowed"):
            spatial(mask=mask)


def test_labels_of_any_integer_type_give_the_same_logits():
    label = np.array([[0, 1, 255], [2, 2, 0]])
    run = functools.partial(mean_field.logits_of_labels, num_classes=3, certainty=0.7)
    expected = np.asarray(run(label.astype(np.uint8)))
    for kind in ("int16", "uint16", "uint32", "int32", "int64"):
        np.testing.assert_array_equal(run(label.astype(kind)), expected)
    np.testing.assert_array_equal(run(label.tolist()), expected)
    for given, text in (
        (label.astype(np.float32), "label: got float32; allowed: integers"),
        (np.where(label == 1, 7, label), "label: got 7; allowed: 0 to 2, and 255 for none"),
        (np.where(label == 1, -1, label), "label: got values of -1 to 255; allowed: 0 to 255"),
    ):
        with pytest.raises(InputError, match=text):
            run(given)
    with pytest.raises(InputError, match="num_classes: got 1; allowed: 2 or more"):
        mean_field.logits_of_labels(label, 1, 0.7)


def test_more_classes_than_a_byte_holds_have_their_own_logits():
    found = mean_field.logits_of_labels(np.array([3], np.uint8), 300, 0.7)
    assert np.flatnonzero(found[0] == found[0].max()).tolist() == [3]


def test_probabilities_are_floats_of_0_to_1_and_clipped_in_float32():
    given = np.array([0.25, 0.75, 0.0])
    expected = np.asarray(mean_field.logits_of_probabilities(given.astype(np.float32)))
    for kind in (np.float16, np.float64, jnp.bfloat16):
        found = mean_field.logits_of_probabilities(given.astype(kind))
        assert found.dtype == jnp.float32
        np.testing.assert_array_equal(found, expected)
    for odd_one, text in (
        (np.array([200], np.uint8), "probabilities: got uint8; allowed: floats"),
        (np.array([1.5]), "probabilities: got values of 1.5 to 1.5; allowed: 0 to 1"),
        (np.array([np.nan]), "probabilities: got values of nan to nan; allowed: 0 to 1"),
    ):
        with pytest.raises(InputError, match=text):
            mean_field.logits_of_probabilities(odd_one)


def test_mean_field_names_what_does_not_fit():
    logits = np.zeros((6, 3), np.float32)
    run = functools.partial(mean_field.infer, filters=[lambda x: x], iterations=1)
    for given, cost, text in (
        (logits.astype(np.int32), 1.0, "logits: got int32; allowed: floats"),
        (logits[0], 1.0, r"logits: got shape \(3,\); allowed: \[N, K\]"),
        (logits * np.nan, 1.0, "logits: got a pixel whose largest is nan"),
        (logits, np.zeros(2), r"compatibility: got shape \(2,\); allowed: \[\] or \[3\]"),
        (logits, np.zeros((3, 2)), r"compatibility: got shape \(3, 2\)"),
    ):
        with pytest.raises(InputError, match=text):
            run(given, compatibilities=[cost])
