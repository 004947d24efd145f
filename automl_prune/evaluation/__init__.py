"""How good a candidate is."""

from automl_prune.evaluation.batchnorm import recalibrate
from automl_prune.evaluation.evaluator import Evaluator, Recipe
from automl_prune.evaluation.finetune import FineTuning, finetune
from automl_prune.evaluation.record import Evaluation
from automl_prune.evaluation.score import score

__all__ = ["Evaluation", "Evaluator", "FineTuning", "Recipe", "finetune", "recalibrate", "score"]
