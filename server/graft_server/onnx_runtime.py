"""onnxruntime, told to be silent: every other module imports it from here. See `environment`."""

from __future__ import annotations

import onnxruntime

__all__ = ["onnxruntime"]

onnxruntime.disable_telemetry_events()
