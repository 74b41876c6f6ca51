"""A hazelnut on a dark table, drawn by arithmetic: pose, outline, stripes, cap, shading; and
cracks, cuts, holes, prints on it."""
from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

DEFECTS = ("crack", "cut", "hole", "print")
SHELL, CAP, INSIDE, TABLE = (np.array(rgb, dtype=float) for rgb in (
    (158, 77, 43), (150, 116, 78), (222, 178, 122), (36, 36, 43)))


def paint(rng: np.random.Generator, pixels: int) -> tuple[np.ndarray, np.ndarray]:
    """A good nut without camera noise: (float [S,S,3] of 0 to 255, bool [S,S] where a defect may
    sit: the open shell)."""
    # the picture is the square [-1,1] x [-1,1]
    y, x = (np.mgrid[0:pixels, 0:pixels] + 0.5) / pixels * 2 - 1
    angle, radius = rng.uniform(0, 2 * np.pi), rng.uniform(0.63, 0.70)
    x, y = x - rng.uniform(-0.06, 0.06), y - rng.uniform(-0.06, 0.06)
    u = (x * np.cos(angle) + y * np.sin(angle)) / radius  # along the nut, tip at +1
    v = (y * np.cos(angle) - x * np.sin(angle)) / (radius * rng.uniform(0.93, 1.0))
    tip = rng.uniform(0.04, 0.12)
    half = np.sqrt(np.clip(1 - np.clip(u, -1, 1)**2, 0, 1)) * (1 - 0.06 * u)
    half = half + tip * np.exp(-(((u - 0.97) / 0.08)**2))
    edge = (half - np.abs(v)) * radius * pixels / 2  # pixels inside the outline
    tilt = rng.uniform(0.04, 0.42)  # how far the cap is turned towards the camera
    rim = 0.02 * _smooth(rng, 64, 2)[(np.arctan2(v, u + 0.85) / (2 * np.pi) * 63).astype(int) % 64]
    cap = 1 - np.sqrt(((u + 0.86) / (tilt + 0.08))**2 + (v / 0.62)**2) + rim  # > 0 on the cap
    nut = np.clip(edge, 0, 1) * np.clip((u + 0.97) * 40, 0, 1)

    longitude = np.arcsin(np.clip(v / np.maximum(half, 1e-3), -1, 1)) / np.pi + 0.5
    longitude = longitude + rng.uniform(-0.02, 0.02) * u
    stripes = np.interp(longitude, np.linspace(0, 1, 160), _smooth(rng, 160, 1.6))
    mottle = ndimage.gaussian_filter(rng.normal(size=(pixels, pixels)), pixels / 40)
    mottle = mottle * pixels / 40 * 1.5
    depth = np.sqrt(np.clip(1 - np.clip(u**2 + v**2, 0, 1), 0, 1))
    light = (0.42 + 0.62 * depth + 0.10 * (-x - y)) * rng.uniform(0.92, 1.08)
    shell = SHELL * rng.uniform(0.92, 1.08, 3) * (1 + 0.10 * stripes + 0.05 * mottle)[..., None]
    fibres = np.interp(np.arctan2(v, u + 0.86) / (2 * np.pi) + 0.5, np.linspace(0, 1, 240),
                       _smooth(rng, 240, 0.8))
    grain = ndimage.gaussian_filter(rng.normal(size=(pixels, pixels)), 0.8)
    wood = CAP * rng.uniform(0.85, 1.1) * (1 + 0.13 * fibres + 0.14 * grain)[..., None]
    on_cap = np.clip(cap * 14, 0, 1)[..., None]
    body = (shell * (1 - on_cap) + wood * on_cap) * light[..., None]
    # the dark seam round the cap
    body *= 1 - 0.45 * np.exp(-((cap / 0.05)**2))[..., None] * (cap < 0.1)[..., None]
    lamp = np.exp(-(((x + 0.22) / 0.16)**2 + ((y + 0.25) / 0.13)**2))
    body += 38 * lamp[..., None] * (1 - on_cap)
    table = TABLE + 1.5 * ndimage.gaussian_filter(rng.normal(size=(pixels, pixels)), 1.2)[..., None]
    dust = ndimage.gaussian_filter(rng.random((pixels, pixels)), 0.7) > 0.86
    table = table + 40 * dust[..., None]
    image = table * (1 - nut[..., None]) + body * nut[..., None]
    return image, (edge > 0.12 * pixels) & (cap < -0.15) & (u > -0.8)


def damage(rng: np.random.Generator, image: np.ndarray, where: np.ndarray, defect: str, size: float,
           contrast: float) -> np.ndarray:
    """The same nut with a defect, float [S,S,3]; its extent grows with `size`, its visibility with
    `contrast` (0 = none)."""
    pixels = len(image)
    y, x = rng.choice(np.argwhere(where)).tolist()
    scale = size * pixels / 256
    layer, colour = Image.new("L", (pixels, pixels)), image.copy()
    draw = ImageDraw.Draw(layer)
    if defect == "print":
        text = "".join(rng.choice(list("HAZELNUT0123456789"), rng.integers(3, 6)))
        draw.text((x, y), text, fill=255, font=ImageFont.load_default(rng.uniform(20, 30) * scale),
                  anchor="mm")
        layer = layer.rotate(rng.uniform(0, 360), center=(x, y), resample=Image.Resampling.BICUBIC)
        colour[:] = (214, 205, 190)
        alpha = 0.85 * np.asarray(layer) / 255
    elif defect == "hole":
        from_it = np.mgrid[0:pixels, 0:pixels] - np.array([y, x])[:, None, None]
        ragged = np.hypot(*from_it) / scale + np.interp(
            np.arctan2(*from_it), np.linspace(-np.pi, np.pi, 40), 1.3 * _smooth(rng, 40, 1))
        radius = rng.uniform(8, 14)
        colour[:] = INSIDE
        colour[ragged < radius - 2] = (18, 12, 10)
        alpha = np.clip(radius + 1.5 - ragged, 0, 1)
    else:
        heading = rng.uniform(0, 2 * np.pi)
        steps, bend = (14, 0.5) if defect == "crack" else (6, 0.03)
        turns = heading + np.cumsum(rng.normal(0, bend, steps))
        length = rng.uniform(60, 105) if defect == "crack" else rng.uniform(38, 75)
        path = np.cumsum(length * scale / steps * np.stack([np.cos(turns), np.sin(turns)], 1), 0)
        path += np.array([x, y]) - path.mean(0)
        width = rng.uniform(3.0, 6.0) if defect == "crack" else rng.uniform(2.2, 4.0)
        draw.line([tuple(p) for p in path], fill=255, width=max(1, round(width * scale)),
                  joint="curve")
        alpha = np.clip(1.4 * ndimage.gaussian_filter(np.asarray(layer) / 255, 0.8), 0, 1)
        colour[:] = INSIDE * (0.75 if defect == "cut" else 0.9)
        if defect == "crack":  # a dark gap between pale edges
            inner = Image.new("L", (pixels, pixels))
            ImageDraw.Draw(inner).line([tuple(p) for p in path], fill=255, width=max(
                1, round(width * scale * 0.6)), joint="curve")
            colour[np.asarray(inner) > 0] = (34, 18, 12)
    # a defect ends where the nut does
    on_nut = ndimage.binary_dilation(where, iterations=max(1, pixels // 14))
    alpha = np.clip(contrast * alpha * on_nut, 0, 1)[..., None]
    return image * (1 - alpha) + colour * alpha


def _smooth(rng: np.random.Generator, n: int, sigma: float) -> np.ndarray:
    """A random closed curve of n values with deviation 1."""
    curve = ndimage.gaussian_filter1d(rng.normal(size=n), sigma, mode="wrap")
    return (curve - curve.mean()) / curve.std()
