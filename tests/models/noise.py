"""Pictures of noise, and the files that are kept of their features."""
import torch

from adlib import config as configs
from adlib.config import Config

CONFIG = Config(image_size=32, weights="none", device="cpu", precision="float32")


def pictures(n=3, size=32, seed=0):
    return torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8,
                         generator=torch.Generator().manual_seed(seed))


def cached():
    return sorted((configs.cache_dir() / "features").glob("*"))


def same(a, b):
    return len(a) == len(b) and all(x.dtype == y.dtype and torch.equal(x, y)
                                    for x, y in zip(a, b, strict=True))
