import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from segjax import initial_weights, network, weights
from segjax.errors import InputError
from segjax.models.importers import weight_files
from segjax.runs import run_folder
from tests import programs, tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory) -> pathlib.Path:
    """A finished run of two steps, with averaged weights."""
    path = tmp_path_factory.mktemp("weights") / "run"
    programs.train_plainly(tiny.short_config(total_steps=2, ema_decay=0.5), path)
    return path


def test_an_exported_network_holds_the_runs_weights_and_says_what_they_are(workdir, tmp_path):
    state = programs.final(workdir)
    for which, prefix in {"raw": "", "ema": "ema/"}.items():
        path = weights.export(workdir, "latest", which, tmp_path / f"{which}.safetensors")
        arrays, meta = weight_files.read(path)
        expected = {
            name.removeprefix(f"{prefix}{part}/"): array
            for part in ("params", "batch_stats")
            for name, array in state.items()
            if name.startswith(f"{prefix}{part}/")
        }
        tiny.assert_same_bits(arrays, expected)
        config = run_folder.read_config(workdir)
        assert tuple(meta["preprocess"]["mean"]) == config.preprocess.mean
        assert meta["model"]["head"]["name"] == "fcn8s"
        assert len(meta["classes"]) == len(meta["palette"]) == 11
        assert (meta["step"], meta["weights"]) == (2, which)
    text = weights.show(tmp_path / "raw.safetensors")
    assert "head/score_top/kernel" in text
    assert "origin segjax" in text
    assert "bicyclist" in text


def test_a_run_that_starts_from_the_file_has_its_weights_and_preprocessing(workdir, tmp_path):
    path = weights.export(workdir, "latest", "raw", tmp_path / "net.safetensors")
    config = tiny.short_config(preprocess__mean=(1.0, 2.0, 3.0))
    config.init["from"] = str(path)
    start = initial_weights.start_of(config)
    initial_weights.adopt_preprocess(config, start)
    assert config.preprocess.mean == run_folder.read_config(workdir).preprocess.mean
    trained = network.load(workdir, "latest").network
    zeros = jax.tree.map(jnp.zeros_like, (trained.params, trained.batch_stats))
    tiny.assert_same_bits(
        start.load(*zeros, model=trained.model), (trained.params, trained.batch_stats)
    )


def test_what_cannot_be_done_is_one_line(workdir, tmp_path):
    with pytest.raises(InputError, match=r"written as .safetensors, got 'net.npz'"):
        weights.export(workdir, "latest", "raw", tmp_path / "net.npz")
    with pytest.raises(InputError, match="no checkpoint '7'"):
        weights.export(workdir, "7", "raw", tmp_path / "net.safetensors")
    with pytest.raises(InputError, match="nix.npz: cannot be read"):
        weights.show(tmp_path / "nix.npz")
    told = programs.line(programs.forked("weights", "export"))
    assert "`show FILE` and `export --workdir=DIR`" in told


def test_a_tensor_that_is_not_finite_is_shown(tmp_path):
    arrays = {"backbone/a": np.array([1.0, np.nan], np.float32), "head/b": np.ones(3, np.float32)}
    weight_files.write(tmp_path / "net.safetensors", arrays, {})
    text = weights.show(tmp_path / "net.safetensors")
    assert "not finite: backbone/a" in text
    assert "images: unknown preprocessing" in text


def test_a_file_that_is_there_is_not_written_over(workdir, tmp_path):
    path = tmp_path / "net.safetensors"
    path.write_bytes(b"of somebody")
    with pytest.raises(InputError, match=r"net\.safetensors: there already; .*--overwrite"):
        weights.export(workdir, "latest", "raw", path)
    assert path.read_bytes() == b"of somebody"
    weights.export(workdir, "latest", "raw", path, overwrite=True)
    assert "origin segjax" in weights.show(path)
