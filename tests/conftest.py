"""Eight virtual CPU devices, and compiled programs kept between runs of the tests."""

import os
import pathlib
import tempfile

import jax
from absl import flags

jax.config.update("jax_num_cpu_devices", 8)

_CACHE = pathlib.Path(
    os.environ.get("SEGJAX_TEST_CACHE") or pathlib.Path(tempfile.gettempdir(), "segjax-test-cache")
)
jax.config.update("jax_compilation_cache_dir", str(_CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)

flags.FLAGS.mark_as_parsed()  # grain's worker processes read flags, and no test runs under absl
