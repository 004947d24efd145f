"""How good a candidate is."""

from automl_prune.evaluation.batchnorm import recalibrate
from automl_prune.evaluation.evaluator import Evaluator, Recipe
from automl_prune.evaluation.finetune import FineTuning, Precision, finetune
from automl_prune.evaluation.parallel import check_devices, finetune_on
from automl_prune.evaluation.reconstruct import reconstruct, unreconstructible
from automl_prune.evaluation.record import Evaluation, RungScore
from automl_prune.evaluation.score import score
from automl_prune.evaluation.sequential import SequentialReconstruction
from automl_prune.evaluation.teacher import Teacher

__all__ = [
    "Evaluation", "Evaluator", "FineTuning", "Precision", "Recipe", "RungScore", "SequentialReconstruction", "Teacher",
    "check_devices", "finetune", "finetune_on", "recalibrate", "reconstruct", "score", "unreconstructible",
]  # fmt: skip
