"""Two run directories side by side."""

from __future__ import annotations

from pathlib import Path

from automl_prune.api.reading import open_study, study_name
from automl_prune.comparison import Comparison, Study
from automl_prune.comparison import compare as compare_studies
from automl_prune.study.directory import RunDirectory
from automl_prune.study.runner import read_identity, read_study


def compare(first: Path, second: Path) -> Comparison:
    """Compare the studies of two run directories; see ``comparison.compare``.

    Raises:
        StudyError: One of them holds no study, or they cannot be compared.
    """
    return compare_studies(_study(first), _study(second))


def _study(run_dir: Path) -> Study:
    name = study_name(RunDirectory(run_dir), None)
    with open_study(run_dir, None) as storage:
        return Study(str(run_dir), read_study(storage, name), str(read_identity(storage, name)["data"]))
