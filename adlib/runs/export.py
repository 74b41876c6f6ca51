"""A finished run as one ONNX file: from the picture to the score, its map and the verdict, with
nothing left to do outside.

Input `picture`: uint8 [1,3,S,S], RGB, resized to S as images.decode does. Outputs: `score` float32
[1], `map` float32 [1,S,S] (smoothed), `anomalous` bool [1]. The file's metadata have the threshold,
the maps' fixed scale (low, level) and what the run was.
"""
from __future__ import annotations

import dataclasses
import json
import math
import typing
from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from adlib.config import STATISTICS, InputError
from adlib.data import files
from adlib.models import anomaly_maps, feature_autoencoder
from adlib.models import backbone as features
from adlib.runs.reopen import Detector

OPSET = 18


class Exported(nn.Module):
    """A run's detector as one float32 module of a single picture; forward returns (score, map,
    anomalous)."""
    def __init__(self, run: Detector) -> None:
        super().__init__()
        self.run, (self.map, self.reduction) = run, run.score.split(".")
        self.parts = nn.ModuleList(
            [run.network] if run.network is not None else [run.scorer.encoder, run.scorer.detector])
        side = next(
            iter(
                self._maps(torch.zeros(1, 3, *[run.config.image_size] * 2,
                                       dtype=torch.uint8)).values())).shape[-1]
        # score.smooth is linear along each axis, so it is two matrix products, borders included.
        self.register_buffer(
            "blur",
            torch.from_numpy(ndimage.gaussian_filter1d(np.eye(side), max(1.0, side / 64),
                                                       axis=0)).float())

    def forward(self, picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        raw = self._maps(picture)
        smoothed = {name: self.blur @ values @ self.blur.mT for name, values in raw.items()}
        smoothed["sum"] = sum((values - self.run.scale[name][0]) / self.run.scale[name][1]
                              for name, values in smoothed.items())
        values = (raw if self.reduction == "mean" and self.map in raw else
                  smoothed)[self.map].flatten(1)
        if self.reduction == "max":
            found = values.amax(dim=1)
        else:
            count = max(1, round(values.shape[1] /
                                 100)) if self.reduction == "top1" else values.shape[1]
            found = (values.topk(count, dim=1).values if self.reduction == "top1" else values).mean(
                dim=1)
        shown = nn.functional.interpolate(smoothed[self.map][:, None], size=picture.shape[-2:],
                                          mode="bilinear")[:, 0]
        return found, shown, found > min(self.run.threshold, torch.finfo(torch.float32).max)

    def _maps(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        x = picture.float() / 255
        if self.run.network is not None:
            return anomaly_maps.pixel_maps(x, self.parts[0](x))
        encoder, detector = self.parts
        # Kept features are float16: what the detector was fitted on.
        stages = [stage.half().float() for stage in features.stages(encoder, x)]
        if isinstance(detector, feature_autoencoder.FrozenAE):
            config = dataclasses.replace(self.run.config, precision="float32")
            return {"distance": feature_autoencoder.errors(detector, stages, picture, config)}
        return {"distance": detector(features.grid(stages, self.run.config.layers))}


def onnx(run: Detector, path: Path, about: dict[str, typing.Any]) -> None:
    """Write the run as ONNX. about: more for its metadata. Raises InputError without the extra
    packages, and for a statistic."""
    try:
        import onnx
        import onnxscript  # noqa: F401  (torch's exporter needs it)
    except ImportError as error:
        raise InputError(
            f"ONNX export needs the package {error.name}; install the extra: pip install -e "
            f"'.[onnx]' in the project's "
            "folder") from error
    if run.config.model in STATISTICS:
        raise InputError(
            f"{run.config.name} is a statistic of the picture and no network; there is nothing to "
            f"export")
    picture = torch.zeros(1, 3, *[run.config.image_size] * 2, dtype=torch.uint8)
    with files.atomic_path(path) as temporary, torch.no_grad():
        torch.onnx.export(
            Exported(run).eval(), (picture, ), str(temporary), input_names=["picture"],
            opset_version=OPSET, dynamo=True, output_names=["score", "map", "anomalous"],
            external_data=False, verbose=False)
        model = onnx.load(str(temporary))
        onnx.helper.set_model_props(
            model, {
                key: json.dumps(value)
                for key, value in (about | {
                    "score": run.score,
                    "threshold": None if math.isinf(run.threshold) else run.threshold,
                    "target_fpr": run.config.target_fpr,
                    "calibration_images": len(run.calibration),
                    "map_low": run.low,
                    "map_level": run.level,
                    "input": f"picture: uint8 "
                    f"[1,3,{run.config.image_size},{run.config.image_size}], RGB, "
                    f"resized with antialiasing (bilinear)",
                }).items()
            })
        onnx.save(model, str(temporary))
