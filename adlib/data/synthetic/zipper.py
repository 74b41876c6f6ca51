"""A zipper on a white table, drawn by arithmetic: woven tape with wavy edges, two rows of
interlocking teeth; and its defects.

A defect changes the geometry that the picture is drawn from (where the teeth and the edges are) or
lays threads over it.
"""
from __future__ import annotations

import numpy as np
from scipy import ndimage

DEFECTS = ("broken_teeth", "split_teeth", "squeezed_teeth", "fabric_border", "fabric_interior",
           "rough", "combined")


def paint(rng: np.random.Generator, pixels: int,
          bent: dict[str, np.ndarray] | None = None) -> np.ndarray:
    """A zipper without camera noise: float [S,S,3] of 0 to 255, grey.

    bent: what a defect did, all in 256ths of the picture: apart, shift, missing [S] along the
    teeth; left, right [S] moves of the edges; threads, holes [S,S] laid over or cut out. The same
    rng gives the same zipper, bent or not.
    """
    bent = bent or {}
    s = pixels / 256
    y, x = (np.mgrid[0:pixels, 0:pixels] + 0.5) / s
    rows = y[:, :1]

    def along(key: str) -> np.ndarray:
        return bent[key][:, None] if key in bent else np.zeros_like(rows)

    wave = [ndimage.gaussian_filter1d(rng.normal(size=pixels), 9 * s, mode="nearest")[:, None]
            * 2.6 * np.sqrt(s) for _ in range(3)]
    left = rng.uniform(24, 34) + rng.uniform(-0.015, 0.015) * (rows - 128)
    right = rng.uniform(225, 234)
    left, right = left + wave[0] + along("left"), right + wave[1] + along("right")
    fray = ndimage.gaussian_filter(rng.normal(size=(pixels, pixels)), 0.9 * s) * 1.6 * s
    tape = np.clip(np.minimum(x - left, right - x) * 0.9 + 0.5 + fray, 0, 1)
    centre = rng.uniform(126, 131) + rng.uniform(-0.012, 0.012) * (rows - 128) + 0.4 * wave[2]

    thread, course = rng.uniform(3.0, 3.4), rng.uniform(6.2, 7.4)
    brick = np.floor(y / course)
    jitter = rng.uniform(0, thread * 4, 200)[brick.astype(int) % 200]
    blocks = np.sign(np.sin(2 * np.pi * (x + jitter) / (4 * thread)))
    fluff = ndimage.gaussian_filter(rng.normal(size=(pixels, pixels)), 0.7)
    weave = 0.55 * np.sin(2 * np.pi * y / course) + 0.45 * blocks
    weave += 0.5 * np.sin(2 * np.pi * x / thread) + 0.9 * fluff
    level = rng.uniform(54, 64)
    image = level + 5.0 * weave + rng.uniform(-0.04, 0.04) * (x - 128)
    image -= 0.55 * level * np.exp(-(((x - centre) / 19)**4))  # the trough the teeth lie in

    pitch, start = rng.uniform(6.6, 7.2), rng.uniform(0, 7)
    shine = rng.uniform(0.85, 1.15)
    for side in (-1, 1):
        middle = centre + side * (8.0 + along("apart"))
        slant = side * 0.16 * (x - middle)
        phase = np.mod(y + along("shift") * (side + 1.4) - start - slant - (side + 1) * pitch / 4,
                       pitch) - pitch / 2
        missing = along("missing") if side == bent.get("side", 1) else 0
        reach = np.exp(-(((x - middle) / 8.5)**6)) * (1 - missing)
        tooth = np.exp(-((phase / 1.5)**2)) - 0.75 * np.exp(-(((phase - 2.6) / 1.0)**2))
        tip = 0.8 * np.exp(-(((x - middle + side * 5) / 2.2)**2)) * np.exp(-((phase / 1.1)**2))
        image = image + shine * reach * (48 * tooth + 62 * tip)
    if "holes" in bent:
        image = image * (1 - 0.75 * bent["holes"])
    if "threads" in bent:
        image = image + (205 - image) * bent["threads"]
    white = 250 + rng.uniform(-2, 4)
    image = white * (1 - tape) + np.clip(image, 8, 235) * tape
    if "stray" in bent:  # threads that stick out over the white table
        image = image + (95 - image) * bent["stray"]
    return np.repeat(image[..., None], 3, axis=2)


def bend(rng: np.random.Generator, pixels: int, defect: str, size: float,
         contrast: float) -> dict[str, np.ndarray]:
    """What a defect does to the zipper (see `paint`); its extent grows with `size`, its strength
    with `contrast` (0 = nothing)."""
    s = pixels / 256
    y, x = (np.mgrid[0:pixels, 0:pixels] + 0.5) / s
    at = rng.uniform(30, 226)
    bump = np.exp(-np.abs((y[:, 0] - at) / (size * rng.uniform(9, 16)))**3)
    if defect == "combined":
        first, second = rng.choice(DEFECTS[:-1], 2, replace=False)
        return (bend(rng, pixels, str(first), size, contrast) |
                bend(rng, pixels, str(second), size, contrast))
    if defect == "split_teeth":
        return {"apart": contrast * rng.uniform(4, 8) * bump}
    if defect == "squeezed_teeth":
        wobble = np.sin((y[:, 0] - at) / rng.uniform(3, 5))
        return {"shift": contrast * 3.2 * bump * (1 + wobble),
                "apart": -contrast * rng.uniform(2.5, 4.5) * bump}
    if defect == "broken_teeth":
        bits = _threads(rng, pixels, at, 128 + rng.choice([-7, 7]), 7 * size, 5)
        return {"missing": np.clip(contrast * 1.1 * bump, 0, 1), "side": rng.choice([-1, 1]),
                "threads": np.clip(contrast * 0.8 * bits, 0, 1)}
    if defect == "fabric_border":
        side, sign = rng.choice(["left", "right"]), rng.choice([-1, 1])
        edge = 29 if side == "left" else 229
        stray = _threads(rng, pixels, at, edge + (-7 if side == "left" else 7), 9 * size, 9)
        return {side: contrast * sign * rng.uniform(4, 9) * bump,
                "stray": np.clip(contrast * 0.8 * stray, 0, 1)}
    column = rng.choice([rng.uniform(45, 95), rng.uniform(165, 212)])
    if defect == "fabric_interior":
        blot = np.exp(-((np.hypot(y - at, x - column) / (size * rng.uniform(7, 12)))**4))
        threads = _threads(rng, pixels, at, column, 9 * size, 6)
        return {"holes": np.clip(contrast * 0.8 * blot, 0, 1),
                "threads": np.clip(contrast * 0.3 * threads, 0, 1)}
    # rough
    threads = _threads(rng, pixels, at, column, 15 * size, 26)
    return {"threads": np.clip(contrast * 0.22 * threads, 0, 1)}


def _threads(rng: np.random.Generator, pixels: int, row: float, column: float, reach: float,
             count: int) -> np.ndarray:
    """Loose curly threads round a point (256ths of the picture): [S,S] in [0,1]."""
    canvas = np.zeros((pixels, pixels))
    steps = np.linspace(0, 1, 60)
    for _ in range(count):
        start = np.array([row, column]) + rng.normal(0, reach / 3, 2)
        heading = rng.uniform(0, 2 * np.pi) + np.cumsum(rng.normal(0, 0.12, steps.size))
        way = np.cumsum(np.stack([np.sin(heading), np.cos(heading)]), 1)
        path = start[:, None] + way * reach / steps.size * 1.6
        i, j = (path * pixels / 256).astype(int)
        inside = (i >= 0) & (i < pixels) & (j >= 0) & (j < pixels)
        canvas[i[inside], j[inside]] = 1
    return np.clip(1.7 * ndimage.gaussian_filter(canvas, 0.7 * pixels / 256), 0, 1)
