"""Files of weights as flat dicts of arrays: safetensors, npz, h5, and pth if torch is installed.

No file runs code: npz is read without pickle, pth through torch's weights-only loader.
"""

import json
import pathlib
import pickle
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from segjax import files
from segjax.errors import InputError

_KEY = "segjax"  # key of segjax's metadata in a safetensors file


def read(path: pathlib.Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """The tensors of a file, name -> array, and the metadata that `write` stored, or {}.

    Raises:
        InputError: naming the file, if it is missing, damaged or of an unknown kind, or if it holds
            pickled objects, no tensor, or anything but real numbers.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path}: weights are read from {', '.join(_READERS)}.")
    try:
        arrays, meta = reader(path)
    except InputError:
        raise
    except Exception as error:  # libraries raise different errors for a damaged file
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{path}: cannot be read as {path.suffix}: {text[:200]}") from error
    if not arrays:
        raise InputError(f"{path}: holds no tensor.")
    for name, array in arrays.items():
        if not np.can_cast(array.dtype, np.float64, "same_kind"):
            raise InputError(f"{path}: {name} holds {array.dtype}, not real numbers.")
    return arrays, meta


def write(path: pathlib.Path, arrays: Mapping[str, np.ndarray], meta: Mapping[str, Any]) -> None:
    """Writes a safetensors file with `meta` as JSON in its header.

    Args:
        path: the file; its folder is made if needed.
        arrays: name -> array.
        meta: plain data.

    Raises:
        InputError: naming the file, if it cannot be written.
    """
    from safetensors.numpy import save

    data = save({k: np.asarray(v, order="C") for k, v in arrays.items()}, {_KEY: json.dumps(meta)})
    files.write(path, data)


def _read_safetensors(path):
    from safetensors import safe_open

    with safe_open(path, "numpy") as file:
        meta = json.loads((file.metadata() or {}).get(_KEY, "{}"))
        if not isinstance(meta, dict) or not _is_preprocess(meta.get("preprocess")):
            raise InputError(f"{path}: its metadata {_KEY!r} is damaged: {str(meta)[:200]}.")
        return {name: file.get_tensor(name) for name in file.keys()}, meta  # noqa: SIM118


def _is_preprocess(value: Any) -> bool:
    """Whether a value has the form of `config.preprocess` or is None."""
    if value is None:
        return True
    try:
        mean, std = (np.asarray(value[key], np.float64) for key in ("mean", "std"))
        numbers = mean.shape == std.shape == (3,) and np.isfinite([mean, std]).all() and std.all()
        return bool(numbers) and isinstance(value["bgr"], bool)
    except (KeyError, TypeError, ValueError):
        return False


def _read_npz(path):
    arrays = {}
    with path.open("rb") as stream:
        if stream.read(2) not in (b"PK", b""):
            raise InputError(f"{path}: is not an npz file (a zip archive of arrays).")
    with np.load(path, allow_pickle=False) as file:
        for name in file.files:
            try:
                array = file[name]
            except ValueError as error:
                if "pickle" not in str(error):
                    raise
                raise InputError(
                    f"{path}: {name} is a pickled object; pickles are not read, "
                    "because they can run code."
                ) from error
            if not isinstance(array, np.ndarray):
                raise InputError(f"{path}: is not an npz file: {name} in it is not an array.")
            arrays[name] = array
    return arrays, {}


def _read_h5(path):
    import h5py

    arrays = {}

    def visit(name, node):
        if not isinstance(node, h5py.Dataset):
            return
        # Keras 3 names groups by class and order; an attribute holds the name of the layer.
        layer = node.parent.attrs.get("name")
        by_order = re.fullmatch(r"(|.*/)layers/[^/]+/vars/(\d+)", name)
        if layer and by_order:
            name = f"{by_order[1]}layers/{layer}/vars/{by_order[2]}"
        if name in arrays:
            raise InputError(f"{path}: two tensors are called {name}.")
        arrays[name] = node[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return arrays, {}


def _read_pth(path):
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path}: reading it needs torch, which is not installed; install it or convert the "
            "file to safetensors."
        ) from None
    try:
        tree = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"{path}: holds more than tensors, or is damaged; other pickled objects are not read, "
            "because they can run code."
        ) from error
    for key in ("state_dict", "model"):  # keys of the weights in a checkpoint
        if isinstance(tree, dict) and isinstance(tree.get(key), dict):
            tree = tree[key]
    if not isinstance(tree, dict):
        raise InputError(f"{path}: holds a {type(tree).__name__}, not tensors by their names.")
    tensors = {k.removeprefix("module."): v for k, v in tree.items() if torch.is_tensor(v)}
    return {k: v.detach().float().numpy() for k, v in tensors.items()}, {}


_READERS = {
    ".safetensors": _read_safetensors,
    ".npz": _read_npz,
    ".h5": _read_h5,
    ".hdf5": _read_h5,
    ".pth": _read_pth,
    ".pt": _read_pth,
}
