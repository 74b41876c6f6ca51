"""What a busy neighbour costs: a run alone, and beside other programs at work, one for every two
cores. Prints a table; a ratio above 2 means that threads wait for cores that they do not get.

    python -m benchmarks.neighbour --data path --weights file

Every run is a fresh process with empty caches; of several the shortest counts.
"""
from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import tempfile
import typing

from benchmarks import common, speed

MODELS = {"fused": 256, "cae": 128}  # pixels
NEIGHBOUR = "while True: pass"
RUN = """
from adlib import Config, calibrate, evaluate, fit, open_part
part = open_part(Config(model={model!r}, image_size={size}, weights={weights!r},
                        data_root={root!r}, category={name!r}))
detector = fit(part.config, part.train, part.held_out)
evaluate(detector, calibrate(detector, part), part)
"""


@contextlib.contextmanager
def neighbours(count: int) -> typing.Iterator[None]:
    """As many programs that do nothing but compute."""
    started = [subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) for _ in range(count)]
    try:
        yield
    finally:
        for one in started:
            one.kill()
            one.wait()


def seconds(script: str, beside: int) -> float:
    """That a script takes, with so many neighbours."""
    with tempfile.TemporaryDirectory() as cache, neighbours(beside):
        return speed.watched([sys.executable, "-c", script], ADLIB_CACHE=cache)["seconds"]


def main() -> None:
    parser = common.of_this_machine(__doc__)
    parser.add_argument("--times", type=int, default=2, help="of each run (default 2)")
    given = common.completed(parser.parse_args())
    count = max(1, (os.cpu_count() or 1) // 2)
    print(f"{speed.processor()}, {os.cpu_count()} cores, {count} busy neighbour(s)")
    for model, size in MODELS.items():
        script = RUN.format(model=model, size=size, weights=given.weights, root=str(given.data),
                            name=given.category)
        runs = [(seconds(script, 0), seconds(script, count)) for _ in range(given.times)]
        alone, beside = (min(times) for times in zip(*runs, strict=True))
        print(f"{model}: {alone:.1f} s alone, {beside:.1f} s beside, {beside / alone:.2f} x",
              flush=True)


if __name__ == "__main__":
    main()
