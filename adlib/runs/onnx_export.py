"""A finished run as one ONNX file: from the picture to its score, map and verdict.

Input `picture`: uint8 [1,3,S,S], RGB, resized to S as reading.read does. Outputs: `score` float32
[1], `map` float32 [1,S,S] (smoothed), `anomalous` bool [1]. The file's metadata have the threshold,
the maps' fixed scale (low, level) and what the run was.
"""
from __future__ import annotations

import json
import math
import typing
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from adlib.config import STATISTICS, InputError
from adlib.data import files, reading
from adlib.models import anomaly_maps, backbone
from adlib.models.autoencoders import Autoencoder
from adlib.models.feature_autoencoder import FeatureAutoencoder
from adlib.models.fused import FeatureDetector
from adlib.runs.inference import Reopened

OPSET = 18


class Exported(nn.Module):
    """A run as one float32 module of a single picture; forward returns (score, map, anomalous)."""

    def __init__(self, run: Reopened) -> None:
        super().__init__()
        self.run, self.detector = run, run.detector
        self.map, self.reduction = run.decision.score.split(".")
        blank = torch.zeros(1, 3, *[run.config.image_size] * 2, dtype=torch.uint8)
        side = next(iter(self._maps(blank).values())).shape[-1]
        # anomaly_maps.smooth is linear along each axis: two matrix products, borders included.
        blur = ndimage.gaussian_filter1d(np.eye(side), max(1.0, side / 64), axis=0)
        self.register_buffer("blur", torch.from_numpy(blur).float())

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        raw, scale = self._maps(picture), self.run.decision.scale
        smoothed = {name: self.blur @ values @ self.blur.mT for name, values in raw.items()}
        smoothed["sum"] = sum((values - scale[name][0]) / scale[name][1]
                              for name, values in smoothed.items())
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
        limit = min(self.run.threshold.value, torch.finfo(torch.float32).max)
        return score, shown, score > limit

    def _maps(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        x, detector = picture.float() / 255, self.detector
        if isinstance(detector, Autoencoder):
            return anomaly_maps.pixel_maps(x, detector.network(x))
        # Kept features are float16: what the detector was fitted on.
        stages = [stage.half().float() for stage in backbone.stages_of(detector.backbone, x)]
        if isinstance(detector, FeatureAutoencoder):
            return {"distance": detector.errors(stages, picture)}
        return {"distance": detector.head(backbone.grid(stages, detector.config.layers))}


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
                         f"install "
                         "-e '.[onnx]' in the project's folder") from error
    config, threshold = run.config, run.threshold.value
    if config.model in STATISTICS:
        raise InputError(f"{config.name} is a statistic of the picture and no network; there is "
                         "nothing to export")
    if not isinstance(run.detector, (Autoencoder, FeatureDetector, FeatureAutoencoder)):
        raise InputError(f"{config.name} is {config.model}, which only its own code can export; "
                         "built-in networks and feature detectors can be exported here")
    if run.decision.score.count(".") != 1 or ":" in run.decision.score:
        raise InputError(f"{config.name} uses the score {run.decision.score}, which is code of "
                         f"your "
                         "own; export a run of a built-in score")
    run.detector.config = type(config)(**config.as_dict() | {"precision": "float32"})
    picture = torch.zeros(1, 3, *[config.image_size] * 2, dtype=torch.uint8)
    with files.atomic_path(path) as temporary, torch.no_grad():
        torch.onnx.export(Exported(run).eval(), (picture,), str(temporary), opset_version=OPSET,
                          input_names=["picture"], output_names=["score", "map", "anomalous"],
                          dynamo=True, external_data=False, verbose=False)
        model = onnx.load(str(temporary))
        onnx.helper.set_model_props(model, {key: json.dumps(value) for key, value in (about | {
            "score": run.decision.score, "threshold": None if math.isinf(threshold) else threshold,
            "target_fpr": config.target_fpr,
            "calibration_images": len(run.threshold.calibration),
            "map_low": run.decision.low, "map_level": run.decision.level,
            "grey_range": reading.parsed(config.grey_range),
            "input": f"picture: uint8 [1,3,{config.image_size},{config.image_size}], RGB, resized "
                     "with antialiasing (bilinear); of more than 8 bits, grey_range becomes 0 and "
                     "255"}).items()})
        onnx.save(model, str(temporary))
