"""Builds the API pages from the docstrings: python docs/build.py [FOLDER].

FOLDER is docs/api by default. A warning is an error, and so is a public module, class or function
without a docstring.
"""

import importlib
import inspect
import pathlib
import pkgutil
import re
import sys
import types
import warnings
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]


def public_modules() -> list[str]:
    """The names of segjax and of all its modules but those with a leading underscore."""
    package = importlib.import_module("segjax")
    modules = pkgutil.walk_packages(package.__path__, "segjax.")
    return ["segjax", *sorted(name for _, name, _ in modules if not _is_private(name))]


def undocumented(name: str) -> list[str]:
    """The public definitions of a module that lack a docstring, the module included."""
    module = importlib.import_module(name)
    missing = [] if inspect.getdoc(module) else [name]
    return missing + [path for path, docstring in _definitions(module) if not docstring]


def build(folder: pathlib.Path) -> None:
    """Writes the pages.

    Raises:
        Warning: if pdoc warns of anything.
    """
    import pdoc

    pdoc.render.configure(docformat="google", footer_text="segjax")
    convert = pdoc.render.env.filters["to_markdown"]

    # The filter gets the template's context first, as pdoc's own does.
    def to_markdown(context, docstring: str) -> str:
        return convert(context, escaped(docstring))

    to_markdown.jinja_pass_arg = convert.jinja_pass_arg
    pdoc.render.env.filters["to_markdown"] = to_markdown
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # Before Python 3.12 a TypedDict does not tell which of its keys are inherited.
        warnings.filterwarnings("ignore", "Cannot determine where .* is taken from")
        pdoc.pdoc("segjax", output_directory=folder)


def escaped(docstring: str) -> str:
    """A docstring in which <name>, *args and __call__ are text and not Markdown.

    Code in backticks and in indented blocks stays as it is.
    """
    blocks: list[tuple[bool, list[str]]] = [(False, [])]  # whether it is code, and its lines
    in_section = in_code = after_blank = False
    for line in docstring.split("\n"):
        if line.strip() and not line.startswith(" "):
            in_section, in_code = bool(re.fullmatch(r"[A-Z][A-Za-z ]+:", line)), False
        elif line.strip() and after_blank and not in_section:
            in_code = True
        after_blank = not line.strip()
        if blocks[-1][0] != in_code:
            blocks.append((in_code, []))
        blocks[-1][1].append(line)
    texts = [(code, "\n".join(lines)) for code, lines in blocks]
    return "\n".join(text if code else _escaped_prose(text) for code, text in texts)


def _escaped_prose(text: str) -> str:
    spans = re.split(r"(`[^`]*`)", text)
    return "".join(
        span if span.startswith("`") else re.sub(r"[*_]", r"\\\g<0>", span).replace("<", "&lt;")
        for span in spans
    )


def _definitions(module: types.ModuleType) -> Iterator[tuple[str, str | None]]:
    """(name, docstring) of the module's public functions, classes and their methods."""
    for name, thing in vars(module).items():
        if _is_private(name) or getattr(thing, "__module__", "") != module.__name__:
            continue
        path = f"{module.__name__}.{name}"
        if inspect.isfunction(thing) or inspect.isclass(thing):
            yield path, thing.__doc__
        if inspect.isclass(thing):
            for inner, member in vars(thing).items():
                if not _is_private(inner) and inspect.isfunction(member):
                    yield f"{path}.{inner}", member.__doc__


def _is_private(name: str) -> bool:
    return any(part.startswith("_") for part in name.split("."))


def main(argv: list[str]) -> None:
    """Checks that everything public has a docstring, and builds the pages."""
    sys.path.insert(0, str(ROOT))
    lacking = [path for name in public_modules() for path in undocumented(name)]
    if lacking:
        sys.exit(f"No docstring: {', '.join(lacking)}.")
    folder = pathlib.Path(argv[1]) if len(argv) > 1 else ROOT / "docs" / "api"
    build(folder)
    print(f"Written: {folder / 'index.html'}")


if __name__ == "__main__":
    main(sys.argv)
