"""What README promises."""

import re

import numpy as np
import pytest

from tests import programs

README = (programs.ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_the_head_of_readme_trains(tmp_path, monkeypatch):
    _, head, recipe = blocks("python")
    assert len(head.splitlines()) < 40
    (tmp_path / "my_heads.py").write_text(head)
    monkeypatch.syspath_prepend(str(tmp_path))
    namespace = {}
    exec(recipe, namespace)
    config = namespace["get_config"]("smoke")
    assert config.model.head.name == "my_heads:MyHead"
    config.total_steps = 1
    programs.train_plainly(config, tmp_path / "run")
    assert (tmp_path / "run" / "eval-val.json").exists()


def test_the_crf_of_readme_refines():
    rng = np.random.default_rng(0)
    names = {
        "image": rng.integers(0, 256, (12, 16, 3), np.uint8),
        "logits": rng.normal(size=(12, 16, 4)).astype(np.float32),
    }
    exec(blocks("python")[0], names)
    assert names["logits"].shape == (12, 16, 4)
    assert np.isfinite(names["logits"]).all()
    assert names["lacking"] == 0


def test_ci_runs_the_test_command_of_readme():
    _, test, *_ = blocks("bash")
    ci = (programs.ROOT / ".ci" / "run").read_text()
    packages = "-r requirements.txt pytest pytest-xdist ruff scikit-image scikit-learn PyMaxflow"
    for part in (packages, "python -m pytest -n auto --dist loadfile --no-loadscope-reorder"):
        assert part in test
        assert part in ci


@pytest.mark.parametrize("path", re.findall(r"\]\(([\w./-]+)\)", README))
def test_a_link_of_readme_leads_somewhere(path):
    assert (programs.ROOT / path).exists()
