"""A class by its name or number, and never another one."""

import pytest

from dualat.data.class_names import class_number


@pytest.mark.parametrize(
    ("text", "names", "expected"),
    [
        ("Bag", ["Coat", "Bag"], 1),
        ("1", ["Coat", "Bag"], 1),
        ("01", ["Coat", "Bag"], 1),
        ("7", ["10", "2", "7"], 2),  # folders sorted as text
        ("1", ["Coat", "1"], 1),
    ],
)
def test_a_name_or_where_no_name_is_a_number_a_number(text, names, expected):
    assert class_number(text, names, "x") == expected


@pytest.mark.parametrize(
    ("text", "names", "match"),
    [
        ("1", ["10", "2", "7"], "x has no class '1': it has 10, 2, 7."),
        ("2", ["Coat", "Bag"], r"it has Coat, Bag \(or numbers 0 to 1\)\.$"),
        ("bag", ["Coat", "Bag"], r"no class 'bag' \(did you mean 'Bag'\?\)"),
        ("²", ["Coat", "Bag", "Hat"], "no class '²'"),
        ("-1", ["Coat", "Bag"], "no class '-1'"),
        ("", ["Coat", "Bag"], "no class ''"),
        ("crane", ["crane", "dog", "crane"], "the name of the classes 0, 2 of x: give the number"),
    ],
)
def test_what_is_no_class_is_one_sentence(text, names, match):
    with pytest.raises(ValueError, match=match):
        class_number(text, names, "x")
