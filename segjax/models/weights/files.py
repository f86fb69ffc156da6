"""Files of weights as flat dicts of arrays: safetensors, npz, h5, and pth where torch is there.

No file runs code: npz without pickle, pth through torch's weights-only loader.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax.errors import InputError

_KEY = "segjax"  # of our own metadata in a safetensors file


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Name -> array of every tensor, and the metadata that `write` put beside them, or {}.

    Raises:
        InputError: naming the file, if it is missing, truncated, holds pickled objects, or is of a
            kind that is not read.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: weights are read from {', '.join(_READERS)}.")
    try:
        arrays, meta = reader(path)
    except InputError:
        raise
    except Exception as error:  # each library has its own for a damaged file
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as {path.suffix}: {text[:200]}") from error
    if not arrays:
        raise InputError(f"{path}: holds no tensor.")
    for name, array in arrays.items():
        if array.dtype == object:
            raise InputError(f"{path}: {name} is a pickled object, not an array of numbers.")
    return arrays, meta


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Writes safetensors, with `meta` as JSON in its header.

    Raises:
        InputError: naming the file, if it cannot be written.
    """
    from safetensors.numpy import save

    data = save({k: np.ascontiguousarray(v) for k, v in arrays.items()}, {_KEY: json.dumps(meta)})
    partial = path.with_name(path.name + ".tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(data)
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise InputError(f"{path}: cannot be written: {error.strerror}.") from error


def _read_safetensors(path):
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        meta = json.loads((file.metadata() or {}).get(_KEY, "{}"))
        return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118


def _read_npz(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}, {}


def _read_h5(path):
    import h5py

    arrays = {}

    def visit(name, node):
        if isinstance(node, h5py.Dataset) and not name.startswith("optimizer"):
            arrays[name] = node[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return arrays, {}


def _read_pth(path):
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path}: torch is needed to read it, and is not installed; or save it as safetensors."
        ) from None
    tree = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):  # a checkpoint that holds more than the weights
        if isinstance(tree.get(key), dict):
            tree = tree[key]
    tensors = {k.removeprefix("module."): v for k, v in tree.items() if torch.is_tensor(v)}
    return {k: v.float().numpy() for k, v in tensors.items()}, {}


_READERS = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
    ".pth": _read_pth,
    ".pt": _read_pth,
}
