import pathlib
import pickle
import struct
import sys

import h5py
import numpy as np
import pytest
import safetensors.numpy

from segjax.errors import InputError
from segjax.models.importers import weight_files

PREPROCESS = {"mean": [1.0, 2.0, 3.0], "std": [1.0, 1.0, 0.5], "bgr": True}


def arrays(dtype=np.float32) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    shapes = {"block1_conv1/kernel": (3, 3, 3, 4), "block1_conv1/bias": (4,), "one": ()}
    return {name: rng.normal(size=shape).astype(dtype) for name, shape in shapes.items()}


def save_npz(path: pathlib.Path, tensors: dict) -> None:
    np.savez(path, **tensors)


def save_h5(path: pathlib.Path, tensors: dict) -> None:
    with h5py.File(path, "w") as file:
        for name, array in tensors.items():
            file[name] = array


def save_pth(path: pathlib.Path, tensors: dict) -> None:
    torch = pytest.importorskip("torch")
    torch.save({name: torch.tensor(array) for name, array in tensors.items()}, path)


SAVERS = {
    ".safetensors": lambda path, tensors: safetensors.numpy.save_file(tensors, path),
    ".npz": save_npz,
    ".h5": save_h5,
    ".pth": save_pth,
}


def refusal(path: pathlib.Path) -> str:
    """The line that refuses a file, without the file's name."""
    with pytest.raises(InputError) as told:
        weight_files.read(path)
    text = str(told.value)
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    return text.removeprefix(f"{path}: ")


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("suffix", SAVERS)
def test_every_format_gives_the_same_arrays(tmp_path, suffix, dtype):
    path = tmp_path / f"file{suffix}"
    SAVERS[suffix](path, arrays(dtype))
    got, meta = weight_files.read(path)
    assert meta == {}
    assert got.keys() == arrays().keys()
    for name, array in arrays(dtype).items():
        assert got[name].shape == array.shape
        np.testing.assert_array_equal(got[name], array)


def test_suffixes_may_have_capitals_or_another_spelling(tmp_path):
    for suffix in (".NPZ", ".Npz"):
        with (tmp_path / f"f{suffix}").open("wb") as stream:
            np.savez(stream, a=np.ones(2))
        assert weight_files.read(tmp_path / f"f{suffix}")[0]["a"].sum() == 2
    save_h5(tmp_path / "f.hdf5", arrays())
    assert weight_files.read(tmp_path / "f.hdf5")[0].keys() == arrays().keys()


def test_bfloat16_is_read(tmp_path):
    header = b'{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    data = np.array([1.5, -2], np.float32).view(np.uint16)[1::2]
    path = tmp_path / "f.safetensors"
    path.write_bytes(struct.pack("<Q", len(header)) + header + data.tobytes())
    np.testing.assert_array_equal(weight_files.read(path)[0]["a"].astype(np.float32), [1.5, -2])


def test_groups_of_keras_3_have_the_names_of_their_layers(tmp_path):
    path = tmp_path / "f.weights.h5"
    with h5py.File(path, "w") as file:
        for group, name in (("conv2d", "block1_conv1"), ("conv2d_1", None)):
            file[f"layers/{group}/vars/0"] = np.ones(3)
            if name:
                file[f"layers/{group}/vars"].attrs["name"] = name
        file["optimizer/vars/0"] = np.ones(1)
        file["optimizer/vars"].attrs["name"] = "adam"
    got = weight_files.read(path)[0]
    assert set(got) == {
        "layers/block1_conv1/vars/0",
        "layers/conv2d_1/vars/0",
        "optimizer/vars/0",
    }


def test_two_groups_of_keras_3_with_one_name_are_refused(tmp_path):
    path = tmp_path / "f.weights.h5"
    with h5py.File(path, "w") as file:
        for group in ("conv2d", "conv2d_1"):
            file[f"layers/{group}/vars/0"] = np.ones(3)
            file[f"layers/{group}/vars"].attrs["name"] = "same"
    assert refusal(path) == "two tensors are called layers/same/vars/0."


def test_a_written_file_is_read_back_with_its_preprocessing(tmp_path):
    path = tmp_path / "new" / "f.safetensors"
    turned = {
        "backbone/a/kernel": np.arange(6.0, dtype=np.float32).reshape(2, 3).T,
        "one": np.float32(7),
    }
    weight_files.write(path, turned, {"preprocess": PREPROCESS, "classes": ("sky", "road")})
    got, meta = weight_files.read(path)
    np.testing.assert_array_equal(got["backbone/a/kernel"], [[0, 3], [1, 4], [2, 5]])
    assert got["one"].shape == ()
    assert meta == {"preprocess": PREPROCESS, "classes": ["sky", "road"]}
    assert [p.name for p in path.parent.iterdir()] == ["f.safetensors"]
    assert safetensors.numpy.load_file(path).keys() == turned.keys()


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="f.safetensors: cannot be written: "):
        weight_files.write(tmp_path / "file" / "f.safetensors", arrays(), {})


@pytest.mark.parametrize(
    "damage",
    [
        [],
        PREPROCESS | {"mean": [1, 2]},
        PREPROCESS | {"std": [1, 0, 1]},
        PREPROCESS | {"mean": [1, 2, float("nan")]},
        PREPROCESS | {"bgr": "no"},
        {"mean": [1, 2, 3]},
        PREPROCESS | {"std": "abc"},
    ],
)
def test_a_damaged_preprocessing_is_refused(tmp_path, damage):
    path = tmp_path / "f.safetensors"
    weight_files.write(path, arrays(), {"preprocess": damage})
    assert "metadata 'segjax' is damaged: " in refusal(path)


@pytest.mark.parametrize("text", ["{", "[1]"])
def test_damaged_metadata_are_refused(tmp_path, text):
    path = tmp_path / "f.safetensors"
    safetensors.numpy.save_file(arrays(), path, {"segjax": text})
    refusal(path)


@pytest.mark.parametrize(
    ("suffix", "reason"),
    [
        (".safetensors", "header|incomplete|buffer"),
        (".npz", "zip"),
        (".h5", "truncated"),
        (".pth", "zip|central directory|damaged"),
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.99])
def test_a_truncated_file_is_refused(tmp_path, suffix, reason, share):
    path = tmp_path / f"f{suffix}"
    tensors = arrays() | {"wide": np.zeros((200, 300), np.float32)}
    SAVERS[suffix](path, tensors)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    text = refusal(path)
    assert any(word in text.lower() for word in reason.split("|")), text


@pytest.mark.parametrize("suffix", SAVERS)
def test_an_empty_file_is_refused(tmp_path, suffix):
    if suffix == ".pth":
        pytest.importorskip("torch")
    path = tmp_path / f"f{suffix}"
    path.write_bytes(b"")
    refusal(path)


@pytest.mark.parametrize("suffix", SAVERS)
def test_a_file_without_tensors_is_refused(tmp_path, suffix):
    path = tmp_path / f"f{suffix}"
    SAVERS[suffix](path, {})
    assert refusal(path) == "holds no tensor."


class Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: pathlib.Path):
        self.path = path

    def __reduce__(self):
        return (pathlib.Path.touch, (self.path,))


def test_a_pickled_object_in_npz_is_refused_by_its_name_and_not_run(tmp_path):
    path, sprung = tmp_path / "f.npz", tmp_path / "sprung"
    np.savez(path, fine=np.ones(2), trap=np.array([Trap(sprung)], object))
    assert refusal(path).startswith("trap is a pickled object; pickles are not read")
    assert not sprung.exists()


@pytest.mark.parametrize("suffix", [".npz", ".pth"])
def test_a_pickle_under_another_name_is_refused_and_not_run(tmp_path, suffix):
    if suffix == ".pth":
        pytest.importorskip("torch")
    path, sprung = tmp_path / f"f{suffix}", tmp_path / "sprung"
    path.write_bytes(pickle.dumps({"a": Trap(sprung)}, protocol=2))
    reasons = {
        ".npz": "is not an npz file (a zip archive of arrays).",
        ".pth": "holds more than tensors, or is damaged",
    }
    assert refusal(path).startswith(reasons[suffix])
    assert not sprung.exists()


def test_another_archive_named_npz_is_refused(tmp_path):
    save_pth(tmp_path / "f.pth", arrays())
    path = (tmp_path / "f.pth").rename(tmp_path / "f.npz")
    assert "is not an npz file: " in refusal(path)


def test_a_damaged_byte_in_npz_is_noticed(tmp_path):
    path = tmp_path / "f.npz"
    np.savez(path, a=np.arange(1000.0))
    data = bytearray(path.read_bytes())
    data[4000] ^= 1
    path.write_bytes(data)
    assert "CRC" in refusal(path)


def test_tensors_of_text_are_refused(tmp_path):
    np.savez(tmp_path / "f.npz", classes=np.array(["sky", "road"]))
    assert refusal(tmp_path / "f.npz") == "classes holds <U4, not real numbers."
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["classes"] = ["sky", "road"]
    assert refusal(tmp_path / "f.h5") == "classes holds object, not real numbers."


@pytest.mark.parametrize("name", ["f.bin", "f", "f.caffemodel", "f.pkl"])
def test_an_unknown_suffix_is_refused_with_the_known_ones(tmp_path, name):
    (tmp_path / name).write_bytes(b"1")
    assert refusal(tmp_path / name) == (
        "weights are read from .safetensors, .npz, .h5, .hdf5, .pth, .pt."
    )


@pytest.mark.parametrize("suffix", SAVERS)
def test_a_missing_file_is_refused(tmp_path, suffix):
    if suffix == ".pth":
        pytest.importorskip("torch")
    assert "No such file" in refusal(tmp_path / f"f{suffix}")


def test_checkpoints_of_torch_may_hold_more_than_the_weights(tmp_path):
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.arange(3.0))
    for name, tree in (
        ("bare", {"a": weight}),
        ("nested", {"state_dict": {"module.a": weight.detach().bfloat16()}, "epoch": 3}),
        ("model", {"model": {"a": weight}, "optimizer": {"lr": 0.1}}),
    ):
        torch.save(tree, tmp_path / f"{name}.pth")
        got = weight_files.read(tmp_path / f"{name}.pth")[0]
        assert list(got) == ["a"]
        np.testing.assert_array_equal(got["a"], [0, 1, 2])
    torch.save([weight], tmp_path / "list.pth")
    assert refusal(tmp_path / "list.pth") == "holds a list, not tensors by their names."


def test_without_torch_a_pth_is_refused_with_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    (tmp_path / "f.pth").write_bytes(b"1")
    assert refusal(tmp_path / "f.pth") == (
        "reading it needs torch, which is not installed; install it or convert the file to "
        "safetensors."
    )
