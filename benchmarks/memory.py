"""Does memory stay flat in the number of images? Many synthetic images on disk, one whole run
through papermill, its peak watched.

    # a quarter of an hour on 2 cores; a tenth of it first to see the difference
    python -m benchmarks.memory --images 100000

The images are drawn hazelnuts with noise of their own each, 128 px JPEG files, decoded to 64 px; 1
in 50 is a test image.
"""
from __future__ import annotations

import argparse
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from adlib.data import files
from adlib.data.synthetic import drawing
from adlib.runs.engines import local
from benchmarks.speed import watched

SIDE, DRAWN = 128, 24


def draw(root: Path, count: int) -> None:
    """`count` images in MVTec AD's layout below root/nut: noisy copies of some drawn ones, so that
    it takes minutes."""
    with tempfile.TemporaryDirectory() as place:
        nut = drawing.write_dataset(Path(place), train=DRAWN, good=DRAWN, anomalous=DRAWN, seed=0,
                                    size=1.0, contrast=1.0, pixels=SIDE) / "hazelnut"
        bad = [path for path in nut.glob("test/*/*.png") if path.parent.name != "good"]
        pictures = {
            kind: [np.asarray(Image.open(path).convert("RGB"), np.int16) for path in sorted(paths)]
            for kind, paths in (("train/good", nut.glob("train/good/*.png")),
                                ("test/good", nut.glob("test/good/*.png")), ("test/bad", bad))}
    for kind in pictures:
        (root / "nut" / kind).mkdir(parents=True)

    def one(i: int) -> None:
        kind = "train/good" if i % 50 else ("test/good", "test/bad")[i // 50 % 2]
        noise = np.random.default_rng(i).integers(-6, 7, (SIDE, SIDE, 1), dtype=np.int16)
        noisy = np.clip(pictures[kind][i % len(pictures[kind])] + noise, 0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(root / "nut" / kind / f"{i:06d}.jpg", quality=85)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(one, range(count), chunksize=256))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--images", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--out", type=Path,
                        default=Path(__file__).parent / "measured" / "memory.json")
    arguments = parser.parse_args()
    found = {}
    for count in arguments.images:
        with tempfile.TemporaryDirectory() as place:
            draw(Path(place) / "data", count)
            parameters = {"data_root": f"{place}/data", "reports": f"{place}/reports",
                          "image_size": "64", "epochs": "1", "batch_size": "32"}
            command = [sys.executable, "-c", local.PAPERMILL, "notebooks/02_cae_baseline.ipynb",
                       f"{place}/out.ipynb", "-k", "python3",
                       *(word for pair in parameters.items() for word in ("-p", *pair))]
            seen = watched(command, ADLIB_CACHE=f"{place}/cache", **local.KEEP_MEMORY)
        found[str(count)] = {name: seen[name] for name in ("seconds", "peak_mb")}
        print(f"{count} images: {seen['seconds']:.0f} s, peak {seen['peak_mb']:.0f} MB beside the "
              "files it maps", flush=True)
    files.write_json(arguments.out, found)


if __name__ == "__main__":
    main()
