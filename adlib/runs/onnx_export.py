"""A finished run as one ONNX file: from a picture of any size to its score, map and verdict.

Inputs: `picture`, uint8 [1,3,H,W] RGB or [1,1,H,W] grey, whole and upright; `target_fpr`, float64
[], the run's own where it is not given. Outputs: `score` float32 [1], `map` float32 [1,S,S]
(smoothed), `anomalous` bool [1]; `foreign` bool [1] (does it not show the part?), its own p-value
`foreign_p_value` float64 [1] and `absent` bool [1] (is the part absent or covered?). A picture is
good where it is neither anomalous nor foreign. The file's metadata have the threshold, the maps'
fixed scale (low, level), the least target_fpr and what the run was.

The picture is resized in the graph (onnx_resize); decoding it, turning it as its EXIF tag says and
laying its alpha over black are the caller's. A run in bf16 is computed in float32 and rounded where
it rounds.

Of a run of tiles the graph takes BATCH squares, `tiles`, uint8 [BATCH,3,T,T], to their `maps`,
float32 [BATCH,h,h], and `origins`, too, where it compares by place. onnx_tiles.py, which
is written beside the file, cuts, stitches and scores, as the metadata say. It does not ask whether
a picture is foreign.
"""
from __future__ import annotations

import base64
import copy
import dataclasses
import io
import json
import math
import typing
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import nn

from adlib.config import STATISTICS, InputError
from adlib.data import files, frame, reading
from adlib.evaluation.conformal import UPPER
from adlib.models import anomaly_maps, backbone
from adlib.models.autoencoders import Autoencoder
from adlib.models.by_place import with_origins
from adlib.models.detector import Detector
from adlib.models.fast import device
from adlib.models.feature_autoencoder import FeatureAutoencoder
from adlib.models.foreign import features_of
from adlib.models.fused import FeatureDetector
from adlib.models.tiles import on_cells
from adlib.runs import onnx_resize
from adlib.runs.inference import Reopened

if typing.TYPE_CHECKING:  # an extra
    import onnx

OPSET, BATCH = 18, 4
SCRIPT = Path(__file__).with_name("onnx_tiles.py")
OUTPUTS = ("score", "map", "anomalous", "foreign", "foreign_p_value", "absent")


class Exported(nn.Module):
    """A run as one float32 module of a single picture of its own size; forward returns OUTPUTS."""

    def __init__(self, run: Reopened) -> None:
        super().__init__()
        self.run, self.detector, threshold = run, _in_float32(run.detector), run.threshold
        self.map, self.reduction = run.decision.score.split(".")
        blank = torch.zeros(1, 3, *[run.config.image_size] * 2, dtype=torch.uint8)
        side = next(iter(_maps(self.detector, blank).values())).shape[-1]
        # anomaly_maps.smooth is linear along each axis: two matrix products, borders included.
        blur = ndimage.gaussian_filter1d(np.eye(side), max(1.0, side / 64), axis=0)
        self.register_buffer("blur", torch.from_numpy(blur).float())
        # Of a run with a threshold there is none for less than its images support: an error.
        values = np.sort(threshold.calibration)
        self.register_buffer("limits", torch.from_numpy(
            values if threshold.is_attainable else np.append(values, np.inf)))
        self.foreign = run.decision.foreign
        self.network = self.foreign and backbone.folded(self.foreign.network)

    def forward(self, picture: torch.Tensor, target_fpr: torch.Tensor) -> tuple[torch.Tensor, ...]:
        raw = _maps(self.detector, picture)
        smoothed = {name: self.blur @ values @ self.blur.mT for name, values in raw.items()}
        smoothed["sum"] = _sum(smoothed, self.run.decision.scale)
        unsmoothed = self.reduction == "mean" and self.map in raw
        values = (raw if unsmoothed else smoothed)[self.map].flatten(1)
        if self.reduction == "max":
            score = values.amax(dim=1)
        else:
            top = self.reduction == "top1"
            count = max(1, round(values.shape[1] / 100))
            score = (values.topk(count, dim=1).values if top else values).mean(dim=1)
        shown = nn.functional.interpolate(smoothed[self.map][:, None], size=picture.shape[-2:],
                                          mode="bilinear")[:, 0]
        n = len(self.run.threshold.calibration)  # as in conformal.Threshold.value
        index = n - torch.floor(target_fpr * (n + 1) + 1e-9).long()
        index = torch.where(index < 0, len(self.limits), index)  # else it would count from the end
        return (score, shown, score.double() > self.limits.index_select(0, index[None]),
                *self._foreign(picture))

    def _foreign(self, picture: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """As conformal.TailThreshold; nothing is foreign where that is not known."""
        threshold, model = self.run.decision.foreign_threshold, self.foreign
        if threshold is None:
            never = picture.flatten()[:1] > 255
            return never, torch.full((1, ), math.nan, dtype=torch.float64), never
        features = features_of(self.network, picture.float() / 255)
        distance, (start, excess) = model.distances(features), threshold.tail
        beyond = (distance - start).clamp_min(0) / max(excess, 1e-300)
        counted = (1 + (model.calibration >= distance).sum()[None]) / (1 + len(model.calibration))
        tail = UPPER * torch.exp(-beyond)
        p_value = torch.where(distance > float(threshold.calibration.max()), tail,
                              torch.maximum(tail, counted.double()))
        foreign = distance > threshold.value
        return foreign, p_value, foreign & model.is_empty(features)


class ExportedTiles(nn.Module):
    """The squares of a run of tiles, uint8 [BATCH,3,T,T] -> the map that its score is read off, not
    smoothed: float32 [BATCH,h,h]. Stitching and smoothing are linear, so maps can be added before.
    """

    def __init__(self, run: Reopened) -> None:
        super().__init__()
        self.detector, self.scale = _in_float32(run.detector.of_squares), run.decision.scale
        self.map = run.decision.score.split(".")[0]

    def forward(self, tiles: torch.Tensor, origins: torch.Tensor | None = None) -> torch.Tensor:
        maps = {name: on_cells(values, tiles.shape[-1])
                for name, values in _maps(self.detector, tiles, origins).items()}
        return maps[self.map] if self.map in maps else _sum(maps, self.scale)


def _in_float32(detector: Detector) -> Detector:
    detector, config = copy.deepcopy(detector), detector.config
    if isinstance(detector, backbone.OnBackbone):
        detector.backbone = backbone.folded(detector.backbone)
    if device.precision(config, device.pick_device(config.device)) == "bf16":
        _round_as_bf16(detector)
    detector.config = dataclasses.replace(config, precision="float32")
    return detector


def _maps(detector: Detector, picture: torch.Tensor,
          origins: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
    x = picture.float() / 255
    if isinstance(detector, Autoencoder):
        return anomaly_maps.pixel_maps(x, detector.network(x))
    # Kept features are float16: what the detector was fitted on.
    stages = [stage.half().float() for stage in backbone.stages_of(detector.backbone, x)]
    if isinstance(detector, FeatureAutoencoder):
        return {"distance": detector.errors(stages, picture)}
    features = backbone.grid(stages, detector.config.layers)
    return {"distance": detector.head(
        features if origins is None else with_origins(features, origins))}


def _sum(maps: dict[str, torch.Tensor], scale: anomaly_maps.Scale) -> torch.Tensor:
    return sum((values - scale[name][0]) / scale[name][1] for name, values in maps.items())


def export(run: Reopened, path: Path, about: dict[str, typing.Any]) -> None:
    """Write the run as ONNX.

    Args:
        about: more for the file's metadata.

    Raises:
        InputError: without the extra packages, and for a detector that is not built in, or that is
            a statistic.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise InputError(f"ONNX export needs the package {error.name}; install the extra: pip "
                         "install -e '.[onnx]' in the project's folder") from error
    config, threshold = run.config, run.threshold
    if config.model in STATISTICS:
        raise InputError(f"{config.name} is a statistic of the picture and no network; there is "
                         "nothing to export")
    tiled = run.detector.tile is not None
    if not tiled and (config.fit != "squeeze" or run.looked_at is not None):
        raise InputError(f"{config.name} has fit: {config.fit}"
                         f"{' and masks of what is looked at' if run.looked_at is not None else ''}"
                         ", which is not exported; export a run of fit: squeeze without masks, or "
                         "of fit: tile")
    if not isinstance(run.detector.of_squares, (Autoencoder, FeatureDetector, FeatureAutoencoder)):
        raise InputError(f"{config.name} is {config.model}, which only its own code can export; "
                         "built-in networks and feature detectors can be exported here")
    if run.decision.score.count(".") != 1 or ":" in run.decision.score:
        raise InputError(f"{config.name} uses the score {run.decision.score}, which is code of "
                         "your own; export a run of a built-in score")
    about = about | {
        "score": run.decision.score, "target_fpr": threshold.target_fpr,
        "threshold": None if math.isinf(threshold.value) else threshold.value,
        "least_target_fpr": threshold.least_target_fpr,
        "calibration_images": len(threshold.calibration),
        "grey_range": reading.parsed(config.grey_range),
        "map_low": run.decision.low, "map_level": run.decision.level}
    with files.atomic_path(path) as temporary, torch.no_grad():
        model, more = (_of_tiles if tiled else _of_pictures)(run, temporary)
        onnx.helper.set_model_props(
            model, {key: json.dumps(value) for key, value in (about | more).items()})
        onnx.checker.check_model(model)
        onnx.save(model, str(temporary))
    if tiled:
        files.write_text(script_beside(path), SCRIPT.read_text(encoding="utf-8"))


def script_beside(path: Path) -> Path:
    """Where the script of an exported run of tiles lies."""
    return path.with_name(f"{path.stem}_tiles.py")


def _of_pictures(run: Reopened, path: Path) -> tuple[onnx.ModelProto, dict[str, typing.Any]]:
    """The graph, and what the metadata have to say of it."""
    import onnx

    size, foreign = run.config.image_size, run.decision.foreign_threshold
    picture = torch.zeros(1, 3, size, size, dtype=torch.uint8)
    target_fpr = torch.tensor(run.threshold.target_fpr, dtype=torch.float64)
    torch.onnx.export(Exported(run).eval(), (picture, target_fpr), str(path), opset_version=OPSET,
                      input_names=["resized", "target_fpr"], output_names=list(OUTPUTS),
                      dynamo=True, external_data=False, verbose=False)
    scoring = onnx.load(str(path))
    model = onnx.compose.merge_models(
        onnx_resize.model(size, scoring.ir_version), scoring, [("resized", "resized")])
    model.graph.initializer.append(
        onnx.numpy_helper.from_array(target_fpr.numpy(), "target_fpr"))  # unless it is given
    (verdict, ) = (node for node in model.graph.node
                   if node.input and node.input[0].endswith("limits"))
    # what its error says
    verdict.name = (f"target_fpr is out of range, {run.threshold.least_target_fpr:g} is the least, "
                    "and below 1")
    return model, {
        "foreign_fpr": foreign and foreign.target_fpr,
        "foreign_images": foreign and len(foreign.calibration),
        "input": "picture: uint8 [1,3,H,W] RGB or [1,1,H,W] grey, whole and upright; resized in "
                 f"here to {size},{size}; of more than 8 bits, grey_range becomes 0 and 255"}


def _of_tiles(run: Reopened, path: Path) -> tuple[onnx.ModelProto, dict[str, typing.Any]]:
    """The same of a run of tiles."""
    import onnx

    config, mask = run.config, None
    tiles = torch.zeros(BATCH, 3, config.tile_size, config.tile_size, dtype=torch.uint8)
    given = {"tiles": tiles}
    if run.detector.asks_origins:
        given["origins"] = torch.zeros(BATCH, 2)
    torch.onnx.export(ExportedTiles(run).eval(), tuple(given.values()), str(path),
                      opset_version=OPSET, input_names=list(given), output_names=["maps"],
                      dynamo=True, external_data=False, verbose=False)
    if run.looked_at is not None:
        png = io.BytesIO()
        Image.fromarray(run.looked_at).save(png, "PNG")
        mask = base64.b64encode(png.getvalue()).decode()
    return onnx.load(str(path)), {
        "tile_size": config.tile_size, "overlap": config.overlap, "scale": config.scale,
        "fill": frame.FILL, "looked_at": mask,
        "input": f"tiles: uint8 [{BATCH},3,{config.tile_size},{config.tile_size}] RGB, squares of "
                 f"an upright picture, as {SCRIPT.name} cuts them" + (
                     f"; origins: float32 [{BATCH},2], where they begin, down and across, in sides "
                     "of a square" if "origins" in given else "")}


def _round_as_bf16(detector: nn.Module) -> None:
    """Round the weights, inputs and outputs of a network's layers as autocast does: sums stay
    float32, which ONNX computes everywhere."""
    def rounded(values: torch.Tensor) -> torch.Tensor:
        return values.bfloat16().float()

    networks = [detector.network] if isinstance(detector, Autoencoder) else [detector.backbone]
    networks += [detector.decoder] if isinstance(detector, FeatureAutoencoder) else []
    for layer in (layer for network in networks for layer in network.modules()):
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            for weights in layer.parameters():
                weights.data = rounded(weights.data)
            layer.register_forward_pre_hook(lambda _, given: (rounded(given[0]), ))
        if not any(layer.children()):
            layer.register_forward_hook(lambda _, given, output: rounded(output))
