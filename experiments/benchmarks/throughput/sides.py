"""Both sides of `bench`: the same network, the same batch, as functions that return when done."""

import copy
import dataclasses
from collections.abc import Mapping

import jax
import ml_collections
import numpy as np
import optax
import torch
import torch.nn.functional
from flax import nnx

from experiments.benchmarks.throughput.nets import NETS, Net
from segjax import initial_weights, metrics, models, sharding
from segjax.data.spec import VOID, DatasetSpec, hls_palette
from segjax.evaluation import steps
from segjax.models import functional, importers
from segjax.network import Network
from segjax.training import assembly, layouts

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
        name: of NETS.
        size: height and width of the images.
        batch: images of a training or evaluation step.
        dtype: of the computation, "float32" or "bfloat16"; parameters are float32.
        width: the network's; the papers' is 64.
    """

    name: str
    size: tuple[int, int]
    batch: int
    dtype: str
    width: int

    @property
    def net(self) -> Net:
        """The network."""
        return NETS[self.name]

    def config(self, *, quiet: bool) -> ml_collections.ConfigDict:
        """The recipe at this size, with plain SGD; `quiet`: without dropout and augmentation."""
        net, config = self.net, self.net.recipe.get_config()
        rate = 0.0 if quiet else net.dropout
        changes = (
            {key: _times(self.width, times) for key, times in net.widths.items()}
            | dict.fromkeys(net.dropouts, rate)
            | net.changes
        )
        for key, value in changes.items():
            part, _, name = key.partition(".")
            with config.unlocked():
                config.model[part][name] = value
        config.dtype, config.batch_size = self.dtype, self.batch
        config.augment.size, config.preprocess.bgr = self.size, False
        if quiet:
            config.augment.scale, config.augment.flip = (1.0, 1.0), 0.0
        config.optim.update(
            {"name": "sgd", "lr": LR, "schedule": "constant", "warmup_steps": 0, "parts": ()}
            | {"momentum": MOMENTUM, "weight_decay": DECAY, "clip_norm": 0.0}
        )
        return config


def _times(width: int, times: int | tuple[int, ...]) -> int | tuple[int, ...]:
    return tuple(width * n for n in times) if isinstance(times, tuple) else width * times


def noise(rows: int, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """A batch as the pipeline makes them; one pixel in twenty is VOID."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, K, (rows, *size), np.uint8)
    label[rng.random(label.shape) < 0.05] = VOID
    return {
        "image": rng.integers(0, 256, (rows, *size, 3), np.uint8),
        "label": label,
        "size": np.tile(np.array(size, np.int32), (rows, 1)),
        "position": np.arange(rows, dtype=np.uint32),
        "position_high": np.zeros(rows, np.uint32),
        "index": np.arange(rows, dtype=np.uint32),
        "weight": np.ones(rows, np.float32),
    }


class Segjax:
    """The compiled steps that `segjax.main` runs, on one device, with the twin's weights.

    Args:
        setting: what is measured.
        twin: arrays of the network in PyTorch, by its names.
        quiet: without dropout and augmentation.
    """

    def __init__(self, setting: Setting, twin: Mapping[str, np.ndarray], *, quiet: bool = False):
        config = setting.config(quiet=quiet)
        training = assembly.assemble(config, SPEC, None, jax.devices()[:1])
        self.setting, self.training = setting, training
        ts = training.initial_state()
        leaves = functional.by_path(ts.params, ts.batch_stats)
        shapes = {path: leaf.shape for path, leaf in leaves.items()}
        found, unused = setting.net.convert(twin, shapes)
        placed = importers.match(found, shapes, (), where="the twin", unused=unused).arrays
        self.ts = ts.replace(
            params=initial_weights.put(ts.params, placed),
            batch_stats=initial_weights.put(ts.batch_stats, placed),
        )
        rows = noise(setting.batch, setting.size)
        self.batch = sharding.put_batch(training.mesh, rows)
        self.step = training.program.lower(self.ts, self.batch).compile()
        self.ts = layouts.laid_out(self.ts, self.step)
        self.image = {name: array[:1] for name, array in rows.items()}
        look = steps.Look(
            steps.Judge(metrics.build(SPEC)),
            blocks=config.loss.blocks,
            samples=0,
            crf=None,
            mesh=training.mesh,
        )
        self.eval_step = look.jitted(training.model, split=True)
        graph = training.model.graphs.inference

        @jax.jit
        def scores(params, batch_stats, image):
            return functional.merge(graph, params, batch_stats)(image)[0].values

        self.scores = scores
        self.normalised = jax.device_put(training.model.preprocess(rows["image"]))

    @property
    def network(self) -> Network:
        """The network with its present weights."""
        ts = layouts.plain(self.ts)
        return Network(ts.params, ts.batch_stats, self.training.model)

    def build(self, rngs: nnx.Rngs) -> nnx.Module:
        """Draws the network anew, for counting."""
        model = self.training.model
        options = {"num_classes": model.num_classes, "dtype": model.dtype}
        return models.build(**model.options, **options, rngs=rngs)

    def train(self, count: int) -> None:
        """Augment, forward, loss, backward, update."""
        for _ in range(count):
            self.ts, scalars = self.step(self.ts, self.batch)
        jax.block_until_ready(scalars)

    def evaluate(self, count: int) -> None:
        """Forward, label map, loss and confusion matrix."""
        network = self.network
        for _ in range(count):
            found = self.eval_step(network, self.batch)
        jax.block_until_ready(found)

    def forward(self, count: int) -> jax.Array:
        """The network alone, to its scores: [B, h, w, K]."""
        network = self.network
        for _ in range(count):
            found = self.scores(network.params, network.batch_stats, self.normalised)
        return jax.block_until_ready(found)

    def latency(self, count: int) -> np.ndarray:
        """One image on the host, uint8, to its label map there."""
        network = self.network
        for _ in range(count):
            batch = sharding.put_batch(self.training.mesh, self.image)
            found = self.eval_step(network, batch)
            label = np.asarray(found["prediction"])
        return label

    def momentum(self) -> dict[str, np.ndarray]:
        """The optimiser's accumulated gradients by our paths."""
        (trace,) = (s for s in self.ts.opt_state if isinstance(s, optax.TraceState))
        return functional.by_path(jax.device_get(trace.trace))


class Torch:
    """The twin, with the same batch, and the same weights for every setting.

    Args:
        setting: what is measured.
        device: "cpu" or "cuda".
        channels_last: memory format of images and kernels.
        compiled: `torch.compile`.
        quiet: without dropout.
    """

    def __init__(
        self,
        setting: Setting,
        device: str,
        *,
        channels_last: bool = False,
        compiled: bool = False,
        quiet: bool = False,
    ):
        torch.manual_seed(0)
        net, config = setting.net, setting.config(quiet=quiet)
        model = net.twin(K, width=setting.width, dropout=0.0 if quiet else net.dropout)
        self.loss_weights = (1.0, config.loss.aux_weight)
        self.convert = net.convert
        self.layout = torch.channels_last if channels_last else torch.contiguous_format
        self.device = device
        self.model = model.to(device, memory_format=self.layout)
        self.run = torch.compile(self.model) if compiled else self.model
        self.cast = torch.autocast(device, torch.bfloat16, enabled=setting.dtype == "bfloat16")
        options = {"lr": LR, "momentum": MOMENTUM, "weight_decay": DECAY, "fused": True}
        self.optimizer = torch.optim.SGD(self.model.parameters(), **options)
        self.mean, self.std = (
            torch.tensor(v, device=device).reshape(3, 1, 1)
            for v in (config.preprocess.mean, config.preprocess.std)
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

    def train(self, count: int) -> None:
        """Forward, loss, backward, update; the images are already normalised."""
        self.model.train()
        for _ in range(count):
            self.optimizer.zero_grad(set_to_none=True)
            with self.cast:
                outputs = self.run(self.normalised)
            self._loss([logits.float() for logits in outputs]).backward()
            self.optimizer.step()
        self._wait()

    def _loss(self, outputs: list[torch.Tensor]) -> torch.Tensor:
        label = self.label.long()
        return sum(
            weight * torch.nn.functional.cross_entropy(logits, label, ignore_index=VOID)
            for weight, logits in zip(self.loss_weights, outputs, strict=False)
        )

    @torch.no_grad()
    def evaluate(self, count: int) -> None:
        """Forward, label map, loss and confusion matrix; the images are already normalised."""
        self.model.eval()
        for _ in range(count):
            with self.cast:
                logits = self.run(self.normalised)[0].float()
            label = self.label.long()
            torch.nn.functional.cross_entropy(logits, label, ignore_index=VOID, reduction="sum")
            pair = label * K + logits.argmax(1)
            torch.bincount(pair[label != VOID], minlength=K * K)
        self._wait()

    @torch.no_grad()
    def forward(self, count: int) -> np.ndarray:
        """The network alone, to its scores: [B, h, w, K]."""
        self.model.eval()
        for _ in range(count):
            with self.cast:
                found = self.run(self.normalised, at_image=False)[0]
        self._wait()
        return found.float().permute(0, 2, 3, 1).cpu().numpy()

    @torch.no_grad()
    def latency(self, count: int) -> np.ndarray:
        """One image on the host, uint8, to its label map there."""
        self.model.eval()
        for _ in range(count):
            with self.cast:
                logits = self.run(self._normalised(self.images[:1]))[0]
            label = logits.argmax(1).to(torch.uint8).cpu().numpy()
        return label

    def momentum(self) -> dict[str, np.ndarray]:
        """The optimiser's accumulated gradients by segjax's paths."""
        found = {
            name: self.optimizer.state[value]["momentum_buffer"].cpu().numpy()
            for name, value in self.model.named_parameters()
        }
        return self.convert(found, {})[0]

    def momentum_in_float64(self) -> dict[str, np.ndarray]:
        """What `momentum` would be after one step."""
        model = copy.deepcopy(self.model).double().train()
        self._loss(model(self.normalised.double())).backward()
        found = {
            name: (value.grad + DECAY * value.detach()).cpu().numpy()
            for name, value in model.named_parameters()
        }
        return self.convert(found, {})[0]

    def arrays(self) -> dict[str, np.ndarray]:
        """Its weights and statistics by its names."""
        return {name: value.cpu().numpy() for name, value in self.model.state_dict().items()}
