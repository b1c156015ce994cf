"""How fast models are trained: by our loop, by its step without an input pipeline, and by the Object Detection API.

For each architecture and batch size, in turn, with several repeats:
  ours      `Trainer.train` over the input pipeline, on a shuffled record, as the rounds of the loop train.
  frozen    ours as it is with a fine-tune checkpoint: the configuration freezes the first layers then, which the API's
            loop for TensorFlow 2 does not do. Only at the default architecture and batch 4.
  limit     the same traced step on one batch that is in memory: what an input pipeline without cost would give.
  API step  the API's own step under tf.function on the same batch.
  API loop  `model_lib_v2.train_loop` on the same record, as people run it, in a process of its own: one call of its
            compiled loop, with what it does between two calls. Only at the default architecture and batch 4, unless
            --all-loops asks for more. Without its summaries of images, which it would write once in 100 steps.

Each configuration has a process of its own, and only one process works at a time.

Example:
    python scripts/bench_throughput.py
    python scripts/bench_throughput.py --photographs --configuration ssd_mobilenet_v2_fpnlite_320:4

The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench_inputs import make_project
from measuring import DEFAULT_TEMPLATE, HEIGHT, WIDTH, Row, quiet_environment, report, say
from odkeras.pipeline import Overrides, apply_overrides, save_pipeline

OURS, FROZEN, LIMIT, API_STEP, API_LOOP = "ours", "frozen", "limit", "api_step", "api_loop"
ENDLESS = 10**9
UNCOUNTED_STEPS = 3
BUILT_TOGETHER = 2  # in parallel, which saves time: building a model occupies only one core
Note = Callable[[], None]


@dataclass(frozen=True)
class Configuration:
    """A template of `configs/` with a batch size."""

    template: str
    batch_size: int

    @classmethod
    def parse(cls, text: str) -> Configuration:
        template, separator, size = text.partition(":")
        if not separator or not size.isdigit() or int(size) < 1:
            raise argparse.ArgumentTypeError(f"{text!r} is not TEMPLATE:BATCH_SIZE")
        return cls(template, int(size))

    @property
    def key(self) -> str:
        return f"{self.template}_batch{self.batch_size}"

    def __str__(self) -> str:
        return f"{self.template}, batch {self.batch_size}"


MAIN = Configuration(DEFAULT_TEMPLATE, 4)
CONFIGURATIONS = (
    MAIN,
    Configuration(DEFAULT_TEMPLATE, 1),
    Configuration(DEFAULT_TEMPLATE, 8),
    Configuration("shapes_96", 4),
    Configuration("efficientdet_d0_512", 4),
)


def main() -> None:
    args = parse_arguments()
    os.environ.update(quiet_environment())
    found: dict[str, Any] = {}
    configurations = tuple(args.configuration or CONFIGURATIONS)
    with tempfile.TemporaryDirectory(prefix="odkeras-bench-") as folder:
        for start in range(0, len(configurations), BUILT_TOGETHER):
            found.update(measure(configurations[start : start + BUILT_TOGETHER], Path(folder), args))
    pictures = f"{WIDTH} x {HEIGHT} photographs" if args.photographs else "shapes of about 320 x 240"
    about = {"pictures": pictures, "repeats": args.repeats, "turn_s": args.turn_s, "loop_steps": args.loop_steps}
    report("throughput", list(rows(configurations)), found, **about)


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--configuration",
        type=Configuration.parse,
        action="append",
        metavar="TEMPLATE:BATCH_SIZE",
        help=f"may be given several times (default: {', '.join(map(str, CONFIGURATIONS))})",
    )
    parser.add_argument("--photographs", action="store_true", help="pictures of 1 megapixel instead of small ones")
    parser.add_argument("--images", type=int, default=40, help="pictures in the record (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each (default: %(default)s)")
    parser.add_argument("--turn-s", type=float, default=1.5, help="seconds of a turn, about (default: %(default)s)")
    parser.add_argument("--all-loops", action="store_true", help="the API's train loop at every configuration")
    parser.add_argument(
        "--loop-steps", type=int, default=10, help="steps of a call of the API's compiled loop (default: %(default)s)"
    )
    return parser.parse_args()


class Worker:
    """A process that measures on request and is idle in between.

    Args:
        work: runs in the process. When ready, it sends the names of the contestants that it can measure. Afterwards it
            answers each name that it receives with that contestant's steps/s.
    """

    def __init__(self, work: Callable[..., None], *args: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_run, args=(work, theirs, *args), daemon=True)
        self._process.start()
        theirs.close()

    def wait_until_ready(self) -> tuple[str, ...]:
        return tuple(self._receive())

    def steps_per_s(self, contestant: str) -> float:
        self._connection.send(contestant)
        return float(self._receive())

    def close(self) -> None:
        self._connection.close()
        self._process.join(20)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()

    def _receive(self) -> Any:
        try:
            return self._connection.recv()
        except EOFError:
            self._process.join(20)
            raise RuntimeError(f"a measuring process ended with exit code {self._process.exitcode}") from None


class _Finished(BaseException):
    """Signals that no more turns are requested. A BaseException, so that no code in between handles it as a failure."""


def _run(work: Callable[..., None], connection: Connection, *args: Any) -> None:
    os.dup2(2, 1)  # send the process's output to stderr, because stdout is for the table
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    with contextlib.suppress(_Finished):
        work(connection, *args)


def _next_turn(connection: Connection) -> str:
    try:
        return str(connection.recv())
    except EOFError:
        raise _Finished from None


def measure(configurations: Sequence[Configuration], folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Build the models of these configurations in parallel; then measure one after the other."""
    found: dict[str, Any] = {}
    with contextlib.ExitStack() as stack:
        workers = {each: start_workers(each, folder / each.key, stack, args) for each in configurations}
        ready = {each: turns_of(workers[each]) for each in configurations}
        for configuration, turns in ready.items():
            found.update(summary(configuration, take_turns(configuration, turns, args.repeats)))
    return found


def start_workers(
    configuration: Configuration, directory: Path, stack: contextlib.ExitStack, args: argparse.Namespace
) -> list[Worker]:
    say(f"{configuration}: building")
    kind = "photographs" if args.photographs else "shapes"
    config, record = make_project(directory, kind, configuration.template, args.images)
    config_path = directory / "throughput.config"
    save_pipeline(apply_overrides(config, Overrides(batch_size=configuration.batch_size)), config_path)
    workers = [Worker(_work_on_steps, config_path, record, args.turn_s, configuration == MAIN)]
    stack.callback(workers[0].close)
    if args.all_loops or configuration == MAIN:
        workers.append(Worker(_work_on_loop, config_path, directory / "api_model", args.loop_steps))
        stack.callback(workers[1].close)
    return workers


def turns_of(workers: Sequence[Worker]) -> dict[str, Worker]:
    return {contestant: worker for worker in workers for contestant in worker.wait_until_ready()}


def take_turns(configuration: Configuration, turns: dict[str, Worker], repeats: int) -> dict[str, list[float]]:
    """Steps/s of each contestant in each repeat; every second repeat has the reverse order."""
    rates: dict[str, list[float]] = {contestant: [] for contestant in turns}
    for repeat in range(repeats):
        for contestant in turns if repeat % 2 == 0 else reversed(turns):
            rates[contestant].append(turns[contestant].steps_per_s(contestant))
        say(f"{configuration}: " + ", ".join(f"{name} {values[-1]:.2f} steps/s" for name, values in rates.items()))
    return rates


def summary(configuration: Configuration, rates: dict[str, list[float]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for contestant, values in rates.items():
        found[f"{contestant}_steps_per_s"] = statistics.median(values)
        found[f"{contestant}_images_per_s"] = configuration.batch_size * statistics.median(values)
        found[f"{contestant}_steps_per_s_all"] = values
    for name, ours, other in (
        ("ours_vs_limit", OURS, LIMIT),
        ("limit_vs_api_step", LIMIT, API_STEP),
        ("ours_vs_api_loop", OURS, API_LOOP),
        ("frozen_vs_api_loop", FROZEN, API_LOOP),
    ):
        if ours in rates and other in rates:
            found[name] = statistics.median(a / b for a, b in zip(rates[ours], rates[other], strict=True))
    return {f"{configuration.key}_{name}": value for name, value in found.items()}


def _work_on_steps(connection: Connection, config_path: Path, record: Path, turn_s: float, frozen: bool) -> None:
    from odkeras import compat

    compat.prepare()
    from odkeras.data.example_set import shuffle_and_repeat
    from odkeras.data.stored_example import index_record
    from odkeras.pipeline import load_pipeline
    from odkeras.training.inputs import example_source, training_dataset
    from odkeras.training.trainer import Trainer

    config, examples = load_pipeline(config_path), index_record(record)
    trainer = Trainer(config)
    dataset = training_dataset(config, trainer.model, example_source(lambda: shuffle_and_repeat(examples)))
    trainer.trace(dataset.element_spec)
    batches = iter(dataset)
    batch = next(batches)
    in_memory = iter(lambda: batch, None)
    step = make_api_step(config)

    def api_steps(steps: int, note: Note) -> None:
        for _ in range(steps):
            step(*batch)["Loss/total_loss"].numpy()
            note()

    contestants: dict[str, Callable[[int, Note], Any]] = {
        OURS: lambda steps, note: trainer.train(batches, steps, on_step=lambda report: note()),
        LIMIT: lambda steps, note: trainer.train(in_memory, steps, on_step=lambda report: note()),
        API_STEP: api_steps,
    }
    if frozen:
        config.train_config.fine_tune_checkpoint = "some/ckpt"  # not read here, but required for freezing to apply
        fine_tuner = Trainer(config)
        assert len(fine_tuner.trained_variables) < len(trainer.trained_variables)
        fine_tuner.trace(dataset.element_spec)
        contestants[FROZEN] = lambda steps, note: fine_tuner.train(batches, steps, on_step=lambda report: note())
    for run in contestants.values():
        run(1, lambda: None)
    steps = max(1, round(turn_s * rate_of(contestants[LIMIT], 1)))
    connection.send(tuple(contestants))
    while True:
        connection.send(rate_of(contestants[_next_turn(connection)], steps))


def rate_of(run: Callable[[int, Note], Any], steps: int) -> float:
    """Steps/s without the first `UNCOUNTED_STEPS`, which use up (or wait for) batches prepared during another turn.
    This also leaves out the copy of the weights at the start of each `Trainer.train`, which happens once per round."""
    times: list[float] = []
    run(steps + UNCOUNTED_STEPS, lambda: times.append(time.perf_counter()))
    return steps / (times[-1] - times[UNCOUNTED_STEPS - 1])


def make_api_step(config: Any) -> Any:
    """The training step of the API's train loop as one traced function, with its own model and optimizer."""
    import tensorflow as tf
    from object_detection import model_lib_v2
    from object_detection.builders import model_builder, optimizer_builder

    model = model_builder.build(config.model, is_training=True)
    step = tf.Variable(0, trainable=False, dtype=tf.int64)
    optimizer, _ = optimizer_builder.build(config.train_config.optimizer, global_step=step)

    @tf.function
    def train_step(features: Any, labels: Any) -> Any:
        losses = model_lib_v2.eager_train_step(
            model,
            features,
            labels,
            config.train_config.unpad_groundtruth_tensors,
            optimizer,
            training_step=step,
            add_regularization_loss=config.train_config.add_regularization_loss,
            clip_gradients_value=config.train_config.gradient_clipping_by_norm or None,
        )
        step.assign_add(1)
        return losses

    return train_step


def _work_on_loop(connection: Connection, config_path: Path, model_dir: Path, steps: int) -> None:
    """Run the API's loop unmodified, except that it blocks where it logs its steps/s, which is after each call of its
    compiled loop. A turn lasts from one such point to the next: it includes the API's writing for one call, and the
    next call."""
    from odkeras import compat

    compat.prepare()
    from object_detection import model_lib_v2

    summaries = model_lib_v2.tf.compat.v2.summary
    write_scalar, begun = summaries.scalar, [0.0]

    def write_in_turns(name: str, data: Any, *args: Any, **kwargs: Any) -> Any:
        if name == "steps_per_sec":
            answer = steps / (time.perf_counter() - begun[0]) if begun[0] else (API_LOOP,)
            connection.send(answer)
            _next_turn(connection)
            begun[0] = time.perf_counter()
        return write_scalar(name, data, *args, **kwargs)

    summaries.scalar = write_in_turns
    model_lib_v2.train_loop(
        pipeline_config_path=str(config_path),
        model_dir=str(model_dir),
        train_steps=ENDLESS,
        checkpoint_every_n=ENDLESS,
        record_summaries=False,
        num_steps_per_iteration=steps,
    )


def rows(configurations: Sequence[Configuration]) -> Iterator[Row]:
    for each in configurations:
        main = each == MAIN
        yield Row(f"{each}: images/s", f"{each.key}_ours_images_per_s", "/s", shown=True)
        yield Row("  steps/s", f"{each.key}_ours_steps_per_s", "/s")
        for contestant, text in (
            *([(FROZEN, "with the first layers frozen, as with a fine-tune checkpoint")] if main else []),
            (LIMIT, "the same step on a batch in memory"),
            (API_STEP, "the API's step on that batch"),
            (API_LOOP, "the API's train loop"),
        ):
            yield Row(f"  {text}: images/s", f"{each.key}_{contestant}_images_per_s", "/s")
            yield Row("    steps/s", f"{each.key}_{contestant}_steps_per_s", "/s")
        yield Row(
            "  ours / the API's train loop (median of pairs)",
            f"{each.key}_ours_vs_api_loop",
            "x",
            shown=main,
        )
        yield Row(
            "  ours with the first layers frozen / the API's train loop (median of pairs)",
            f"{each.key}_frozen_vs_api_loop",
            "x",
            at_least=1.3,
            shown=main,
        )
        limit = "  ours / the step on a batch in memory (median of pairs)"
        yield Row(limit, f"{each.key}_ours_vs_limit", "x", at_least=0.95, shown=main)
        yield Row("  our step / the API's, in memory (median of pairs)", f"{each.key}_limit_vs_api_step", "x")


if __name__ == "__main__":
    main()
