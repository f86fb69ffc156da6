"""Both sides of `bench`: the same network, the same batch, as functions that return when done."""

import dataclasses
from collections.abc import Callable

import jax
import ml_collections
import numpy as np
import optax
import torch
from torch.nn import functional

from configs import fcn8s
from experiments.throughput import torch_fcn
from segjax import experiment, state
from segjax.data.spec import VOID, DatasetSpec, hls_palette

K = 21
LR, MOMENTUM, DECAY = 1e-3, 0.9, 5e-4
SPEC = DatasetSpec(
    name="noise",
    classes=tuple(f"class {i}" for i in range(K)),
    palette=hls_palette(K),
    table=(*((i, i) for i in range(K)), (255, VOID)),
)


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is measured.

    Attributes:
        size: height and width of the images.
        batch: images of a training or evaluation step.
        dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
        width, fc_width: the network's; the paper's are 64 and 4096.
    """

    size: int
    batch: int
    dtype: str
    width: int
    fc_width: int

    def config(self, **changes) -> ml_collections.ConfigDict:
        """The recipe of FCN-8s without batch norm, and plain SGD."""
        config = fcn8s.get_config()
        config.model.backbone.batch_norm = False
        config.model.backbone.width, config.model.backbone.fc_width = self.width, self.fc_width
        config.dtype, config.batch_size = self.dtype, self.batch
        config.augment.size = (self.size, self.size)
        config.optim.update(
            {"lr": LR, "schedule": "constant", "warmup_steps": 0, "parts": ()}
            | {"momentum": MOMENTUM, "weight_decay": DECAY}
        )
        config.update_from_flattened_dict(changes)
        return config


def noise(rows: int, size: int) -> dict[str, np.ndarray]:
    """A batch as the pipeline makes them; one pixel in twenty is VOID."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, K, (rows, size, size), np.uint8)
    label[rng.random(label.shape) < 0.05] = VOID
    return {
        "image": rng.integers(0, 256, (rows, size, size, 3), np.uint8),
        "label": label,
        "size": np.full((rows, 2), size, np.int32),
        "position": np.arange(rows, dtype=np.uint32),
        "index": np.arange(rows, dtype=np.uint32),
        "weight": np.ones(rows, np.float32),
    }


def awake(ts: state.TrainState) -> state.TrainState:
    """Score kernels drawn instead of zero: else all logits are zero, and equal by themselves."""

    def draw(path, leaf):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if "score" not in name or "kernel" not in name:
            return leaf
        drawn = np.random.default_rng(leaf.size).normal(0, leaf.shape[2] ** -0.5, leaf.shape)
        return jax.device_put(drawn.astype(np.float32), leaf.sharding)

    return ts.replace(params=jax.tree_util.tree_map_with_path(draw, ts.params))


class Segjax:
    """The compiled steps that `segjax.main` runs, on one device."""

    def __init__(self, setting: Setting, **changes):
        parts = experiment.assemble(setting.config(**changes), SPEC, None, jax.devices()[:1])
        self.setting, self.parts = setting, parts
        self.ts = awake(parts.initial_state())
        rows = noise(setting.batch, setting.size)
        self.batch = state.put_batch(parts.mesh, rows)
        self.image = {name: array[:1] for name, array in rows.items()}
        _, graph = state.graphs(parts.build)

        @jax.jit
        def scores(params, batch_stats, image):
            return state.merge(graph, params, batch_stats)(image)[0].values

        self.scores = scores
        self.normalised = jax.device_put(parts.preprocess(rows["image"]))

    def train(self, steps: int) -> None:
        """Augment, forward, loss, backward, update."""
        for _ in range(steps):
            self.ts, scalars = self.parts.train_step(self.ts, self.batch)
        jax.block_until_ready(scalars)

    def evaluate(self, steps: int) -> None:
        """Forward, label map, loss and confusion matrix."""
        for _ in range(steps):
            found = self.parts.eval_step(self.ts.params, self.ts.batch_stats, self.batch)
        jax.block_until_ready(found)

    def forward(self, steps: int) -> jax.Array:
        """The network alone, to its scores at stride 8: [B, h, w, K]."""
        for _ in range(steps):
            found = self.scores(self.ts.params, self.ts.batch_stats, self.normalised)
        return jax.block_until_ready(found)

    def latency(self, steps: int) -> np.ndarray:
        """One image on the host, uint8, to its label map there."""
        for _ in range(steps):
            batch = state.put_batch(self.parts.mesh, self.image)
            found = self.parts.eval_step(self.ts.params, self.ts.batch_stats, batch)
            label = np.asarray(found["prediction"])
        return label

    def momentum(self) -> dict[str, np.ndarray]:
        """The optimiser's accumulated gradients under the twin's names."""
        (trace,) = (s for s in self.ts.opt_state if isinstance(s, optax.TraceState))
        return torch_fcn.named_arrays(jax.device_get(trace.trace))


class Torch:
    """The twin, with the same weights and the same batch.

    Args:
        setting: what is measured.
        params: segjax's.
        preprocess: RGB to network input.
        device: "cpu" or "cuda".
        channels_last: memory format of images and kernels.
        compiled: `torch.compile`.
        dropout: rate after fc6 and fc7.
    """

    def __init__(
        self,
        setting: Setting,
        params,
        preprocess: Callable,
        device: str,
        *,
        channels_last: bool,
        compiled: bool,
        dropout: float = 0.5,
    ):
        widths = {"width": setting.width, "fc_width": setting.fc_width}
        model = torch_fcn.FCN8s(K, dropout=dropout, **widths)
        torch_fcn.load(model, params)
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.device = device
        self.model = model.to(device, memory_format=self.layout)
        self.run = torch.compile(self.model) if compiled else self.model
        self.cast = torch.autocast(device, torch.bfloat16, enabled=setting.dtype == "bfloat16")
        options = {"lr": LR, "momentum": MOMENTUM, "weight_decay": DECAY, "fused": True}
        self.optimizer = torch.optim.SGD(self.model.parameters(), **options)
        self.mean, self.std = (
            torch.tensor(v, device=device).reshape(3, 1, 1)
            for v in (preprocess.mean, preprocess.std)
        )
        rows = noise(setting.batch, setting.size)
        self.label = torch.tensor(rows["label"], device=device)
        self.images = rows["image"]
        self.normalised = self._normalised(self.images)

    def _normalised(self, images: np.ndarray) -> torch.Tensor:
        images = torch.from_numpy(images).to(self.device).permute(0, 3, 1, 2).float()
        return ((images - self.mean) / self.std).contiguous(memory_format=self.layout)

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    def train(self, steps: int) -> None:
        """Forward, loss, backward, update; the images are already normalised."""
        self.model.train()
        for _ in range(steps):
            self.optimizer.zero_grad(set_to_none=True)
            with self.cast:
                logits = self.run(self.normalised)
            loss = functional.cross_entropy(logits.float(), self.label.long(), ignore_index=VOID)
            loss.backward()
            self.optimizer.step()
        self._wait()

    @torch.no_grad()
    def evaluate(self, steps: int) -> None:
        """Forward, label map, loss and confusion matrix; the images are already normalised."""
        self.model.eval()
        for _ in range(steps):
            with self.cast:
                logits = self.run(self.normalised).float()
            label = self.label.long()
            functional.cross_entropy(logits, label, ignore_index=VOID, reduction="sum")
            pair = label * K + logits.argmax(1)
            torch.bincount(pair[label != VOID], minlength=K * K)
        self._wait()

    @torch.no_grad()
    def forward(self, steps: int) -> np.ndarray:
        """The network alone, to its scores at stride 8: [B, h, w, K]."""
        self.model.eval()
        for _ in range(steps):
            with self.cast:
                found = self.run(self.normalised, at_image=False)
        self._wait()
        return found.float().permute(0, 2, 3, 1).cpu().numpy()

    @torch.no_grad()
    def latency(self, steps: int) -> np.ndarray:
        """One image on the host, uint8, to its label map there."""
        self.model.eval()
        for _ in range(steps):
            with self.cast:
                logits = self.run(self._normalised(self.images[:1]))
            label = logits.argmax(1).to(torch.uint8).cpu().numpy()
        return label

    def momentum(self) -> dict[str, np.ndarray]:
        """The optimiser's accumulated gradients."""
        return {
            name: self.optimizer.state[value]["momentum_buffer"].cpu().numpy()
            for name, value in self.model.named_parameters()
        }
