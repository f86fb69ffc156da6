"""`--config` on the command line: what is wrong with it is one line, and nothing is written."""

import re

import pytest

from tests import programs


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("", "--config=RECIPE is needed"),
        ("--config=fcn9s", "no shipped recipe is called 'fcn9s'; .* Did you mean \"fcn8s\""),
        ("--config fcn8s:smok", "unknown 'smok'; known: .* Did you mean \"smoke\""),
        ("--config=nowhere/fcn8s.py:smoke", "The shipped recipe is --config=fcn8s."),
        ("--config=fcn8s:bsds500", "does not support bsds500; it supports scenes"),
        ("--config=fcn8s:paper", "did not train on scenes; they trained on voc2012"),
        ("--config=fcn8s --config.optm.lr=1", 'Did you mean "optim"'),
        ("--config=fcn8s --config.optim.lrr=1", 'Did you mean "lr"'),
        ("--config=fcn8s --config.optim.lr=nan", "config.optim.lr is nan; it must be a finite"),
        ("--config=fcn8s --config.optim.lr=fast", "config.optim.lr is 'fast'; it must be a finite"),
        (
            "--config=fcn8s --config.batch_size=2.5",
            "config.batch_size is '2.5'; it must be a whole",
        ),
        (
            "--config=fcn8s --config.loader.cache=maybe",
            "config.loader.cache is 'maybe'; it must be",
        ),
        (
            "--config=fcn8s --config.augment.size=64",
            r"config.augment.size is \(64,\); it must be 2",
        ),
        (
            "--config=fcn8s --config.augment.size=(64",
            "config.augment.size is '\\(64'; it must|size",
        ),
        ("--config=fcn8s --config.init.from=a --config.init.step=x", "config.init.step is 'x'; it"),
        ("--config=fcn8s --config.init=3", "config"),
        ("--config.seed=3 --config=fcn8s", "before a value for --config"),
        ("--config=fcn8s --config.optim.lrr=1", "unknown config key 'optim.lrr'. Did you mean"),
        (
            "--config=fcn8s --config.model.head.at_onec=true",
            r"config.model.head: fcn8s takes no 'at_onec'; options: .* Did you mean \"at_once\"",
        ),
        (
            "--config=fcn8s --config.model.backbone.fc_batch_norm=maybe",
            "config.model.backbone.fc_batch_norm is 'maybe'; it must be True or False or None",
        ),
        ("--config=slic --config.eval.limit=-1", "config.eval.limit is -1; it must be a whole"),
    ],
)
def test_a_wrong_config_is_one_line_and_nothing_is_written(tmp_path, flags, told):
    done = programs.verb("main", *flags.split(), cwd=tmp_path, PYTHONPATH=str(programs.ROOT))
    line = programs.line(done)
    assert re.search(told, line), line
    assert list(tmp_path.iterdir()) == []
