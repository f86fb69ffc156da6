"""Eight virtual CPU devices, and compiled programs kept between runs of the tests."""

import gc
import importlib.metadata
import os
import pathlib
import tempfile

# Compiling is most of the work here: half as long without LLVM's optimisation, and two thirds of
# that with the older emitters, which later releases have no more: an unknown flag ends the process.
_QUICK = ["--xla_backend_optimization_level=0"]
if importlib.metadata.version("jaxlib").startswith("0.10."):
    _QUICK.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_QUICK])

import jax  # noqa: E402
from absl import flags  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)

_CACHE = pathlib.Path(
    os.environ.get("SEGJAX_TEST_CACHE") or pathlib.Path(tempfile.gettempdir(), "segjax-test-cache")
)
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

# A tenth of the time went into looking through the many lasting objects of traced programs.
gc.set_threshold(100_000, 50, 100)

flags.FLAGS.mark_as_parsed()  # grain's worker processes read flags, and no test runs under absl

# Files of few and long tests go first: at the end one process would work on them alone.
_LONG = (
    "acceptance", "atrous_oracle", "crf_rnn_network", "decoders_oracle", "distributed", "fusion",
    "heatmaps", "kmeans", "labeller", "loop", "methods", "ncut", "own", "prediction", "steps",
    "verbs", "zoo",
)  # fmt: skip


def pytest_collection_modifyitems(items: list) -> None:
    """Sorts by file; the order within a file stays."""
    items.sort(key=lambda item: item.path.stem.removesuffix("_test") not in _LONG)
