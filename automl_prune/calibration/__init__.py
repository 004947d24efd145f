"""What one pass of training images says about every layer's inputs: the source of criteria and reconstruction."""

from automl_prune.calibration.collect import collect, with_gradients
from automl_prune.calibration.statistics import Calibration, CalibrationSettings, LayerStatistics
from automl_prune.calibration.store import load_or_collect

__all__ = ["Calibration", "CalibrationSettings", "LayerStatistics", "collect", "load_or_collect", "with_gradients"]
