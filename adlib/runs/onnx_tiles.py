"""A picture of any size through an exported run of tiles: python FILE.py FILE.onnx PICTURE...

Needs onnxruntime, numpy, scipy and pillow, and of adlib nothing but the .onnx beside it: the graph
takes squares of a picture to their anomaly maps, and the file's metadata say how squares are cut,
stitched and scored. `upright` and `look` are what a program of your own may call.
"""
import base64
import io
import json
import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps
from scipy.ndimage import gaussian_filter


def upright(path, grey_range):
    """A file as `look` takes it: turned as its EXIF tag says, its alpha laid over black; grey
    values of more than 8 bits, from the run's grey_range to 0 to 255. Exits for others."""
    picture = Image.open(path)
    deep = picture.mode[0] in "IF"
    if deep and not grey_range or not deep and any(";16" in str(tile[3]) for tile in picture.tile):
        sys.exit(f"{path}: it has more than 8 bits; only grey pictures are read so, of a run that "
                 "has a grey_range")
    picture = ImageOps.exif_transpose(picture)
    if deep:
        low, high = grey_range
        values = (np.asarray(picture, float) - low) * (255 / (high - low)) + 0.5
        if not np.isfinite(values).all():
            sys.exit(f"{path}: some of its values are no numbers")
        picture = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    elif picture.has_transparency_data:
        rgba = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", rgba.size, "black"), rgba)
    return picture.convert("RGB")


def look(session, picture):
    """An upright RGB picture -> its score, higher = more anomalous; its smoothed map, float [h,w];
    which of the map's cells count, bool [h,w]."""
    known = session.get_modelmeta().custom_metadata_map
    tile, overlap, scale, fill, mask = (json.loads(known[key]) for key in (
        "tile_size", "overlap", "scale", "fill", "looked_at"))
    # What is not looked at is painted; then the picture is scaled, and its rim filled up to whole
    # cells of 8 pixels and to at least one square.
    counts = Image.new("L", picture.size, 255)
    if mask:
        counts = Image.open(io.BytesIO(base64.b64decode(mask))).convert("L").resize(picture.size, 0)
        picture = Image.composite(picture, Image.new("RGB", picture.size, tuple(fill)), counts)
    inner = [max(1, round(side * scale)) for side in picture.size]
    for size in ((inner[0], picture.height), inner):  # across, then down
        picture, counts = (one.resize(size, Image.BILINEAR) for one in (picture, counts))
    width, height = (max(tile, -(-side // 8) * 8) for side in inner)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    rim = ((top, height - inner[1] - top), (left, width - inner[0] - left))
    pixels = np.pad(np.asarray(picture), (*rim, (0, 0)), mode="symmetric").transpose(2, 0, 1)
    counts = np.pad(np.asarray(counts) > 127, rim)
    # Squares through the graph; where they overlap, a mean that gives less weight to their rims.
    places = [(y, x) for y in starts(height, tile, overlap) for x in starts(width, tile, overlap)]
    batch, total = session.get_inputs()[0].shape[0], 0
    for first in range(0, len(places), batch):
        some = (places[first:first + batch] + places[:1] * batch)[:batch]
        given = {"tiles": np.stack([pixels[:, y:y + tile, x:x + tile] for y, x in some])}
        if len(session.get_inputs()) > 1:
            given["origins"] = np.array(some, np.float32) / tile
        maps, = session.run(["maps"], given)
        side = maps.shape[-1]
        cell, distance = tile // side, np.minimum(np.arange(side), np.arange(side)[::-1]) + 0.5
        line = 0.5 - 0.5 * np.cos(np.pi * np.minimum(1, distance / max(1, overlap // cell)))
        if not first:
            total = np.zeros((2, height // cell, width // cell), np.float32)
        for (y, x), one in zip(places[first:first + batch], maps, strict=False):
            total[:, y // cell:y // cell + side, x // cell:x // cell + side] += (
                line[:, None] * line * np.stack([one, np.ones_like(one)]))
    values = total[0] / total[1]
    # A mean of the cells that count, and the score: the highest of a square's 1%.
    share = counts.reshape(height // cell, cell, width // cell, cell).mean(axis=(1, 3))
    cells = share > 0.499 if (share > 0.499).any() else share > 0
    sigma, (name, how) = max(1, side / 64), json.loads(known["score"]).split(".")
    if how != "mean" or name == "sum":
        values = gaussian_filter(np.where(cells, values, 0), sigma) / np.maximum(
            gaussian_filter(cells.astype(np.float32), sigma), 1e-6)
    ranked = np.sort(values[cells])
    count = {"mean": len(ranked), "max": 1}.get(how, max(1, round(min(side**2, len(ranked)) / 100)))
    return float(ranked[-count:].mean()), np.where(cells, values, ranked[0]), cells


def starts(length, tile, overlap):
    """Where squares begin along a side, at multiples of 8: as few as cover it, evenly spread."""
    count = 1 + -(-(length - tile) // (tile - overlap))
    return [round((length - tile) * i / max(1, count - 1) / 8) * 8 for i in range(count)]


if __name__ == "__main__":
    session = onnxruntime.InferenceSession(sys.argv[1])
    known = session.get_modelmeta().custom_metadata_map
    threshold, grey_range = (json.loads(known[key]) for key in ("threshold", "grey_range"))
    for name in sys.argv[2:]:
        score, *_ = look(session, upright(name, grey_range))
        verdict = "" if threshold is None else "anomalous" if score > threshold else "good"
        print(f"{name}\t{score:.6g}\t{verdict}")
