"""Names and options, apart from what they stand for; every door is in doors_test.py."""

import dataclasses
import sys

import pytest
from flax import nnx

from segjax import registry
from segjax.errors import InputError, choose


class Module(nnx.Module):
    """A class whose metaclass hides the signature."""

    def __init__(self, channels: int, *, width: int, depth: int = 2, rngs: nnx.Rngs):
        self.made = (channels, width, depth)


def function(image, *, width: int, depth: int = 2):
    return image, width, depth


@dataclasses.dataclass(frozen=True)
class Record:
    width: int
    depth: int = 2


TABLE = {"function": function, "module": Module, "later": "tests.registry_test:Record"}


def bind(fn, options, **how):
    return registry.bind(fn, options, "config.part", name="it", **how)


def test_a_hint_names_the_nearest_word_or_nothing():
    with pytest.raises(
        InputError, match=r'^key: unknown .*; known: slic, kmeans\. Did .*"slic"\?$'
    ):
        choose("key", "slik", ("slic", "kmeans"))
    with pytest.raises(InputError, match=r"known: slic, kmeans\.$"):
        choose("key", "felzenszwalb", ("slic", "kmeans"))
    with pytest.raises(InputError, match=r"unknown 3; known: 1, 2\.$"):
        choose("key", 3, (1, 2))


def test_words_of_a_preset_need_no_quotes():
    parsed = registry.parse("--protocol", "single, fusion=mean_logit, flip=true, a='b c', n=None")
    assert parsed == (
        "single", {"fusion": "mean_logit", "flip": True, "a": "b c", "n": None}
    )  # fmt: skip
    assert registry.parse("k", "x, scales=(1, half), y=False")[1] == {
        "scales": (1, "half"), "y": False
    }  # fmt: skip
    for text in ("x, y=mean-logit", "x, y=a b", "x, y=f(1)", "x, y"):
        with pytest.raises(InputError, match="is not a preset with key=value after it"):
            registry.parse("--protocol", text)
    with pytest.raises(InputError, match="gives y twice"):
        registry.parse("--protocol", "x, y=1, y=2")


def test_a_name_is_ours_or_imported_when_it_is_asked_for():
    assert registry.find(TABLE, "function", "config.part.name") is function
    assert registry.find(TABLE, "later", "config.part.name") is Record
    assert registry.find(TABLE, "tests.registry_test:Record", "config.part.name") is Record


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("functoin", r"unknown 'functoin'; known: function, module, later, or module:Name\. Did"),
        ("", r"unknown ''; known: function, module, later, or module:Name\.$"),
        (None, "unknown None; known: function"),
        ("no_such_module:Thing", "cannot import 'no_such_module:Thing': No module named"),
        ("tests.no_such:Thing", "cannot import 'tests.no_such:Thing': No module named"),
        ("tests.registry_test:Recrod", "tests.registry_test has no 'Recrod'. Did .*\"Record\""),
        ("tests.registry_test:TABLE", "'tests.registry_test:TABLE' is a dict, which cannot be cal"),
        (":Record", "':Record' is not module:Name, such as"),
        ("tests.registry_test:", "is not module:Name, such as"),
        (".registry_test:Record", "is not module:Name, such as"),
    ],
)
def test_a_name_that_stands_for_nothing_is_refused(name, message):
    with pytest.raises(InputError, match=f"^config.part.name: .*{message}") as caught:
        registry.find(TABLE, name, "config.part.name")
    assert "\n" not in str(caught.value)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """The folder where the command runs, which is not on the path yet."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [place for place in sys.path if place])
    yield tmp_path
    for name in [name for name in sys.modules if name.startswith("registry_made")]:
        del sys.modules[name]


def test_a_module_lies_where_the_command_runs_and_may_import_its_neighbours(here):
    (here / "registry_made.py").write_text(
        "def late():\n    from registry_made_too import value\n    return value\n"
    )
    (here / "registry_made_too.py").write_text("value = 7\n")
    assert registry.find({}, "registry_made:late", "config.part.name")() == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("import os\nvalue = os.no_such\n", r"AttributeError: .*no_such.* \(.*made.*, line 2\)\."),
        ("value = \n", r"invalid syntax \(registry_made_broken.py, line 1\)\."),
        ("import no_such_module\n", r"No module named 'no_such_module'\."),
        ("raise ValueError('two\\nlines')\n", r"ValueError: two lines \(.*, line 1\)\."),
    ],
)
def test_a_module_that_fails_says_where(here, text, message):
    (here / "registry_made_broken.py").write_text(text)
    with pytest.raises(InputError, match=f"^config.part.name: cannot import .*{message}") as caught:
        registry.find({}, "registry_made_broken:value", "config.part.name")
    assert "\n" not in str(caught.value)


def test_options_are_bound_and_settings_fill_the_gaps():
    call = bind(function, {"width": 3}, positional=("image",))
    assert call("image") == ("image", 3, 2)
    settings = {"width": 5, "depth": 6, "height": 7}
    assert bind(function, {"width": 3}, positional=("image",), offered=settings)(0) == (0, 3, 6)
    assert bind(Record, {}, offered=settings)() == Record(5, 6)
    call = bind(Module, {"width": 3}, keywords=("channels", "rngs"))
    assert call(channels=4, rngs=nnx.Rngs(0)).made == (4, 3, 2)


@pytest.mark.parametrize(
    ("fn", "options", "how", "message"),
    [
        (Record, {"widht": 1}, {}, r"it takes no 'widht'; options: width, depth\. Did .*\"width\""),
        (Record, {"depth": 1}, {}, r"it needs width; options: width, depth\.$"),
        (function, {"image": 1, "width": 1}, {"positional": ("image",)}, "it takes no 'image'"),
        (Module, {"rngs": 1, "width": 1}, {"keywords": ("channels", "rngs")}, "takes no 'rngs'"),
        (
            Module,
            {"width": 1},
            {"keywords": ("rngs", "dtype")},
            r"called with \(rngs=.*dtype=.*does not",
        ),
        (Record, {}, {"positional": ("a", "b", "c")}, r"called with .a, b, c, .... and does not"),
        (list, {"x": 1}, {}, "it takes no 'x'; options: none"),
    ],
)
def test_options_that_do_not_fit_the_signature_are_refused(fn, options, how, message):
    with pytest.raises(InputError, match=f"^config.part: .*{message}"):
        bind(fn, options, **how)


def test_the_rest_of_a_part_of_the_config_are_options():
    made = registry.resolve(TABLE, {"name": "later", "width": 3}, "config.part")()
    assert made == Record(3)
    with pytest.raises(InputError, match="^config.part: later needs width"):
        registry.resolve(TABLE, {"name": "later"}, "config.part")
    with pytest.raises(InputError, match="^config.part.name: unknown ''"):
        registry.resolve(TABLE, {"width": 3}, "config.part")


def test_options_for_several_reach_those_that_know_them():
    known = {"one": ("width", "depth"), "other": ("width", "height")}
    dealt = registry.deal({"width": 1, "height": 2}, known, "config.part.options")
    assert dealt == {"one": {"width": 1}, "other": {"width": 1, "height": 2}}
    with pytest.raises(
        InputError,
        match=r"options: one and other take no 'hight'; options: width, depth, height\. D",
    ):
        registry.deal({"hight": 1}, known, "config.part.options")
