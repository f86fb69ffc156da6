import math

import ml_collections
import pytest

from segjax.configuration import allowed


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (allowed.whole(), (0, 7), (-1, 1.0, True, "1", None)),
        (allowed.whole(1, 3), (1, 3), (0, 4)),
        (allowed.number(0, 1), (0, 1, 0.5), (-1e-9, 1.1, math.nan, math.inf, False, "0")),
        (allowed.number(above=0), (1e-9, 3), (0, -1, math.inf, -math.inf)),
        (allowed.number(0, below=1), (0, 0.999), (1, 1.0)),
        (allowed.number(), (-3, 2.5), (math.nan,)),
        (allowed.flag(), (True, False), (0, 1, "True", None)),
        (allowed.text(), ("", "a"), (1, None, ("a",))),
        (allowed.text(empty=False), ("a",), ("", " ")),
        (allowed.choice("max", "min"), ("max",), ("", "maxi", 1)),
        (allowed.step(), ("best", "latest", "12", 12), ("", "first", "-1", -1, 1.5)),
        (
            allowed.several(allowed.whole(1), 2),
            ((1, 2), [1, 2]),
            ((1,), (1, 2, 3), (0, 1), 1, "12"),
        ),
        (allowed.row(allowed.text(), allowed.number()), (("a", 1),), (("a",), (1, "a"), "a")),
        (allowed.rows("", allowed.text()), ((), ("a", "b")), ("ab", ("a", 1), None)),
        (allowed.either(allowed.flag(), allowed.text()), (True, "a"), (1, None)),
        (
            allowed.part("name"),
            ({"name": ""}, ml_collections.ConfigDict({"name": "", "more": 1})),
            ({}, {"nam": ""}, ("name",), None),
        ),
    ],
)
def test_a_kind_holds_its_values_and_no_others(kind, good, bad):
    assert all(map(kind.holds, good))
    assert not any(map(kind.holds, bad))


def test_kinds_say_what_they_allow():
    assert allowed.whole(1).words == "a whole number from 1 on"
    assert allowed.whole(0, 9).words == "a whole number from 0 to 9"
    assert allowed.number(0, below=1).words == "a finite number from 0 on and below 1"
    assert allowed.number().words == "a finite number"
    assert allowed.choice("max", "min").words == 'one of "max", "min"'
    pair = allowed.several(allowed.whole(1), 2, "(height, width)")
    assert pair.words == "2 values (height, width), each a whole number from 1 on"
