"""Models as files that can be trusted: verified before they get their final name.

ONNX export is in ``export.onnx``, which is not imported here: restoring a model needs neither onnx nor its runtime.
"""

from automl_prune.export.checkpoint import load_pruned, save_pruned

__all__ = ["load_pruned", "save_pruned"]
