"""A task small enough to compile in a second: linear regression on a mesh; the trainer's tests drive it.

As a program it trains on several processes: `python toy.py OUTPUT STEPS COORDINATOR NUM_PROCESSES PROCESS_ID`.
"""

import os
import signal
import sys

import jax
import jax.numpy as jnp
import numpy as np

from mimicmotion_jax import sharding
from mimicmotion_jax.config import load_config
from mimicmotion_jax.training.config import RunConfig
from mimicmotion_jax.training.state import apply_gradients
from mimicmotion_jax.training.trainer import train

SIZE = 128  # squared, just enough for parameters to be sharded


class ToyLoader:
    """Batches that depend on their number alone; every process reads its own rows."""

    contents = "toy"

    def __init__(self, mesh, batch_size):
        self.mesh, self.batch_size, self.batches = mesh, batch_size, 0

    def __next__(self):
        rng = np.random.default_rng(self.batches)
        self.batches += 1
        x = rng.normal(size=(self.batch_size, SIZE)).astype(np.float32)
        return {"x": x[list(sharding.local_rows(self.mesh, self.batch_size).rows)]}

    def get_state(self):
        return {"batches": self.batches}

    def set_state(self, state):
        self.batches = state["batches"]

    def close(self):
        """Nothing is open."""


class Toy:
    """It learns y = 2 x; it records what the trainer asks of it.

    Args:
        config: of the run.
        bad: step whose batch is not finite.
        interrupted: step during which the process receives SIGTERM.
    """

    memory_advice = "lower batch_size"
    progress = False

    def __init__(self, config, bad=None, interrupted=None):
        self.config, self.bad, self.interrupted, self.events = config, bad, interrupted, []
        self.mesh = sharding.training_mesh(devices=jax.devices() if jax.process_count() > 1 else jax.devices()[:1])
        self.loader = ToyLoader(self.mesh, config.batch_size)
        self.shapes = {"toy.kernel": (SIZE, SIZE)}
        self.sources = {"checkpoint": "a" * 64}

    def identity(self):
        return {"model": {"size": SIZE}, **self.sources}

    def load(self):
        return {"toy.kernel": jnp.zeros((SIZE, SIZE))}

    def next_batch(self):
        batch = sharding.global_batch(self.mesh, self.config.batch_size, next(self.loader), ())
        if self.loader.batches == self.interrupted:
            os.kill(os.getpid(), signal.SIGTERM)
        return jax.tree.map(lambda x: x * np.nan, batch) if self.loader.batches == self.bad else batch

    def step(self, state, batch):
        return _step(state, batch, self.config.optimizer, self.config.steps)

    def sample(self, state, step):
        self.events.append(f"sample {step}")

    def export(self, state):
        self.events.append("export")
        return "a model"

    def peak_steps_per_second(self):
        return 1e9


@jax.jit(static_argnames=("optimizer", "steps"))
def _step(state, batch, optimizer, steps):
    def loss(params):
        return jnp.mean((batch["x"] @ params["toy.kernel"] - 2 * batch["x"]) ** 2)

    value, grads = jax.value_and_grad(loss)(state.params)
    return apply_gradients(state, value, grads, optimizer, steps)


def make_config(output, *overrides):
    base = ["steps=8", "batch_size=4", "log_every=3", "save_every=4", "sample_every=null", "keep=9"]
    rate = ["optimizer.learning_rate=0.1", "optimizer.warmup_steps=2"]
    return load_config(RunConfig, overrides=[f"output={output}", *base, *rate, *overrides])


if __name__ == "__main__":
    output, steps, coordinator, num_processes, process_id = sys.argv[1:]
    jax.distributed.initialize(coordinator, int(num_processes), int(process_id))
    toy = Toy(make_config(output, f"steps={steps}", "log_every=1", "save_every=1"))
    stopped_by = train(toy)
    sys.exit(0 if stopped_by is None else 128 + stopped_by)
