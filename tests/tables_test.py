import math

import pytest

from segjax import tables


def test_a_table_aligns_numbers_at_the_right():
    rows = [("road", 0.5, 1200), ("sign symbol", math.nan, 3), ("car", "absent", 45)]
    assert tables.format_table(rows, ("class", "IoU", "pixels")) == (
        "class           IoU  pixels\n"
        "-----------  ------  ------\n"
        "road         0.5000    1200\n"
        "sign symbol       -       3\n"
        "car          absent      45"
    )


def test_text_in_a_table_is_left_aligned_without_trailing_blanks():
    rows = [("road", "ok"), ("car", "missing")]
    assert tables.format_table(rows, ("class", "state")).splitlines()[2] == "road   ok"


def test_a_table_without_rows_is_its_header():
    assert tables.format_table([], ("a", "b")) == "a  b\n-  -"


def test_a_table_refuses_a_row_of_another_length():
    with pytest.raises(ValueError):
        tables.format_table([("a",)], ("a", "b"))
