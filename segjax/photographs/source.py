"""Image files as a source: one file, or those of a folder."""

import concurrent.futures
import contextlib
import pathlib
from collections.abc import Iterator, Sequence

import numpy as np

from segjax.data import sources
from segjax.data.spec import VOID
from segjax.errors import InputError


class Photographs:
    """Image files as a source without truth: every label is VOID.

    Args:
        paths: the files.
        folder: names are paths below it; by default they are the files' names.
    """

    def __init__(self, paths: Sequence[pathlib.Path], folder: pathlib.Path | None = None):
        self.paths, self._folder = tuple(paths), folder

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        image = sources.read_image(self.paths[index])
        return image, np.full(image.shape[:2], VOID, np.uint8)

    def name(self, index: int) -> str:
        """The path of a file below the folder, without its suffix."""
        path = self.paths[index]
        return path.relative_to(self._folder or path.parent).with_suffix("").as_posix()

    def examined(self) -> tuple["Photographs", np.ndarray, "LeftOut"]:
        """Those that can be read, their sizes int32 [N, 2], and the others; reads every file."""

        def size(path: pathlib.Path) -> tuple[int, ...] | InputError:
            try:
                return sources.read_image(path).shape[:2]
            except InputError as error:
                return error

        with concurrent.futures.ThreadPoolExecutor() as pool:
            found = list(pool.map(size, self.paths))
        left_out = LeftOut(len(self))
        sizes = {}
        for path, one in zip(self.paths, found, strict=True):
            if isinstance(one, InputError):
                left_out.add(str(one))
            else:
                sizes[path] = one
        good = Photographs(list(sizes), self._folder)
        return good, np.array(list(sizes.values()), np.int32).reshape(-1, 2), left_out

    def named(self) -> Iterator[tuple[str, np.ndarray]]:
        """Yields (name, image uint8 [H, W, 3]) of every file."""
        for index in range(len(self)):
            yield self.name(index), self[index][0]


class LeftOut:
    """Photographs without a result, and why: they do not stop the others.

    Args:
        total: number of all photographs.
    """

    def __init__(self, total: int):
        self._total = total
        self._entries: list[tuple[str, str]] = []  # name and reason

    def __len__(self) -> int:
        return len(self._entries)

    def add(self, text: str, name: str = "") -> None:
        """Adds one by the reason, which names the file or goes with its name."""
        self._entries.append((name, text))

    @contextlib.contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Adds the photograph of this name if the block raises an InputError."""
        try:
            yield
        except InputError as error:
            self.add(str(error), name)

    def finish(self) -> None:
        """Prints a line for each.

        Raises:
            InputError: if there is any. The reason alone if all photographs share it, as where an
                option is wrong.
        """
        if not self._entries:
            return
        told = [f"{name}: {text}" if name else text for name, text in self._entries]
        reasons = {text for _, text in self._entries}
        if len(told) == self._total:
            if self._total == 1:
                raise InputError(told[0])
            if len(reasons) == 1:
                raise InputError(reasons.pop())
        for line in told:
            print(line)
        raise InputError(
            f"{len(told)} of {self._total} photographs have no result; first: {told[0]}"
        )


def find(path: pathlib.Path, output: pathlib.Path | None = None) -> Photographs:
    """The photograph at a path, or those of a folder and its sub-folders, sorted.

    Args:
        path: `--input`.
        output: folder of the results, which is not read where it lies in the other.

    Raises:
        InputError: if there are none, if two of them have one name, or if the results would come
            between the photographs.
    """
    if path.is_file():
        return Photographs([path])
    if not path.is_dir():
        raise InputError(f"--input: there is no file or folder {str(path)!r}.")
    if output is not None and output.resolve() == path.resolve():
        raise InputError(
            f"--output: {output} is the folder of the photographs, which the results would join; "
            "give another."
        )
    files = sources.files_by_stem(path, without=output)
    return Photographs([files[stem] for stem in sorted(files)], path)
