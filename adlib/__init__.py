"""adlib: find defective parts having seen only good ones.

What a notebook needs, by name. Each is imported when it is first asked for: `import adlib` loads
no torch.
"""
import importlib
import os
import typing

__version__ = "0.1.0"

# Before torch is loaded: a thread that waits for another one sleeps. Spinning, it would take the
# core that the other needs, wherever a neighbour leaves no core to each.
for _name, _value in (("OMP_WAIT_POLICY", "PASSIVE"), ("KMP_BLOCKTIME", "0")):
    os.environ.setdefault(_name, _value)

_HOMES = {
    "Config": "config", "open_part": "evaluation.fits", "build": "models.registry",
    "fit": "models.detector", "CAE": "models.autoencoders", "ResNetAE": "models.autoencoders",
    "ssim_map": "models.ssim", "calibrate": "evaluation.calibration",
    "Threshold": "evaluation.conformal", "evaluate": "evaluation.results",
    "start": "runs.run_folder", "reopen": "runs.inference"}
__all__ = list(_HOMES)  # found by __getattr__


def __getattr__(name: str) -> typing.Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
