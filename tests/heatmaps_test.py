import cv2
import numpy as np
import pytest

from segjax import heatmaps, models
from segjax.configs import imagenet_heatmap
from segjax.errors import InputError
from segjax.models import functional
from segjax.models.importers import weight_files
from segjax.photographs import heatmaps as heatmap_files
from segjax.photographs import source
from tests import programs

NAMES = [f"class {i}" for i in range(300)]  # more than a byte holds


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of a narrow classifier and the names of its classes."""
    path = tmp_path_factory.mktemp("classifier")
    (path / "names.txt").write_text("\n".join(NAMES))

    def build(rngs):
        return models.build(**config(path).model, num_classes=300, dtype="float32", rngs=rngs)

    arrays = functional.by_path(*functional.initial_arrays(build, 1))
    arrays = {name: np.array(array) for name, array in arrays.items()}
    rng = np.random.default_rng(0)
    arrays["head/classifier/kernel"] = 3 * rng.normal(
        size=arrays["head/classifier/kernel"].shape
    ).astype(np.float32)
    meta = {"preprocess": {"mean": (100.0, 90.0, 80.0), "std": (60.0, 60.0, 60.0), "bgr": True}}
    weight_files.write(path / "net.safetensors", arrays, meta)
    return path


def config(folder):
    made = imagenet_heatmap.get_config()
    made.model.backbone.width = 4
    made.init["from"] = str(folder / "net.safetensors")
    made.predict.classes = str(folder / "names.txt")
    return made


def photo(height: int, width: int) -> np.ndarray:
    rng = np.random.default_rng(height)
    small = rng.integers(0, 256, (5, 7, 3), np.uint8)
    return cv2.resize(small, (width, height), interpolation=cv2.INTER_NEAREST)


@pytest.mark.parametrize("size", [(1, 1), (260, 290)])
def test_maps_of_an_image_of_any_size_agree_with_each_other(folder, size):
    found = heatmaps.Maps(config(folder))(photo(*size))
    scores = np.asarray(found["scores"], np.float64)
    assert scores.shape[-1] == 300
    # The classifier slid over the map: 7 x 7 cells, or as many as there are.
    k, m = (min(7, length) for length in scores.shape[:2])
    windows = [
        scores[i : i + k, j : j + m].mean((0, 1))
        for i in range(scores.shape[0] - k + 1)
        for j in range(scores.shape[1] - m + 1)
    ]
    expected = np.exp(windows) / np.exp(windows).sum(1, keepdims=True)
    np.testing.assert_allclose(found["probability"], expected.mean(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_array_equal(found["best"], np.argsort(-found["probability"])[:5])
    assert found["best_maps"].shape == (*size, 5)
    assert found["best_maps"].min() >= 0
    assert found["best_maps"].max() <= 1 + 1e-6
    assert found["argmax"].shape == size
    assert found["argmax"].dtype == np.uint16


def test_the_argmax_is_that_of_the_scores_at_the_images_size(folder):
    found = heatmaps.Maps(config(folder))(photo(100, 90))
    # GoogLeNet's last stage: cell i is centred at 32 i + 30.5.
    rows, cols = (np.clip((np.arange(n) + 0.5 - 30.5) / 32, 0, None) for n in (100, 90))

    def weights(position, cells):
        position = np.minimum(position, cells - 1)
        return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(cells)))

    scores = np.asarray(found["scores"], np.float64)
    full = np.einsum("Hh,hwk->Hwk", weights(rows, scores.shape[0]), scores)
    full = np.einsum("Ww,Hwk->HWk", weights(cols, scores.shape[1]), full)
    assert (full.argmax(-1) == found["argmax"]).mean() > 0.999
    assert len(np.unique(found["argmax"])) > 1


def test_the_preprocessing_that_the_file_records_is_applied(folder):
    made = config(folder)
    recorded = heatmaps.Maps(made)(photo(40, 40))["scores"]
    assert made.preprocess.bgr
    assert made.preprocess.mean == (100.0, 90.0, 80.0)
    other = config(folder)
    other.init.preprocess = "config"
    assert np.abs(heatmaps.Maps(other)(photo(40, 40))["scores"] - recorded).max() > 0.1


def test_predict_writes_labels_pictures_and_all_maps(folder, tmp_path, capsys):
    made = config(folder)
    made.predict.short_side = 48
    (tmp_path / "in").mkdir()
    for name, size in (("a", (60, 90)), ("b", (33, 40))):
        cv2.imwrite(str(tmp_path / "in" / f"{name}.png"), photo(*size))
    out = tmp_path / "out"
    images = source.find(tmp_path / "in")
    heatmap_files.write(made, images, out, left_out=source.LeftOut(2))
    with pytest.raises(InputError, match=r"out/a\.png and 7 more: there already"):
        heatmap_files.write(made, images, out, left_out=source.LeftOut(2))
    label = cv2.imread(str(out / "a.png"), cv2.IMREAD_UNCHANGED)
    assert label.dtype == np.uint16
    assert label.shape == (48, 72)
    with np.load(out / "b_heatmaps.npz") as file:
        assert file["scores"].shape[-1] == 300
        assert file["scores"].dtype == np.float16
    for name in ("a_argmax.png", "a_heatmaps.png", "b_argmax.png", "b_heatmaps.png"):
        assert cv2.imread(str(out / name)).std() > 10
    assert len(list(out.iterdir())) == 8
    assert "a: class " in capsys.readouterr().out


def test_what_is_missing_or_does_not_fit_is_named(folder, tmp_path):
    cases = {
        "config.predict.classes: neither 'nix'": {"predict.classes": "nix"},
        "config.init.from: a network without a run needs weights": {"init.from": ""},
        r"2 misshapen: .*head/classifier/kernel \[1, 1, 64, 300\] for \[1, 1, 64, 2\]": {
            "predict.classes": str(tmp_path / "two.txt")
        },
    }
    (tmp_path / "two.txt").write_text("a\nb\n")
    for message, changes in cases.items():
        made = config(folder)
        for key, value in changes.items():
            part, name = key.split(".")
            made[part][name] = value
        with pytest.raises(InputError, match=message):
            heatmaps.Maps(made)


def predict(folder, given, *flags: str):
    """The verb with the narrow classifier on a folder of photographs."""
    return programs.forked(
        "predict", "--config=imagenet_heatmap", "--config.model.backbone.width=4",
        f"--config.init.from={folder / 'net.safetensors'}", "--config.predict.short_side=0",
        f"--config.predict.classes={folder / 'names.txt'}", f"--input={given}",
        f"--output={given / 'out'}", *flags,
    )  # fmt: skip


def test_the_verb_takes_a_config_in_place_of_a_run(folder, tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), photo(50, 60))
    done = predict(folder, tmp_path, "--save=heatmaps")
    assert done.returncode == 0, done.stderr
    assert "photo: class " in done.stdout
    assert (tmp_path / "out" / "photo_heatmaps.png").exists()
    told = programs.line(programs.forked("predict", f"--input={tmp_path / 'photo.png'}"))
    assert "Either --workdir" in told


def test_labels_of_more_classes_than_a_label_image_holds_are_refused(folder, tmp_path):
    cv2.imwrite(str(tmp_path / "photo.png"), photo(50, 60))
    told = programs.line(predict(folder, tmp_path))
    assert "names.txt: 300 classes; label images hold at most 254: --save=heatmaps" in told
    assert not (tmp_path / "out").exists()
