"""Two run directories side by side."""

from __future__ import annotations

from pathlib import Path

from automl_prune.api.reading import open_study
from automl_prune.comparison import Comparison, Study
from automl_prune.comparison import compare as compare_studies
from automl_prune.study.directory import RunDirectory
from automl_prune.study.runner import read_identity, read_study


def compare(first: Path, second: Path, storage: str | None = None) -> Comparison:
    """Compare the studies of two run directories; see ``comparison.compare``.

    Args:
        first: A run directory.
        second: Another one.
        storage: URL of the database of those that hold no journal.

    Raises:
        StudyError: One of them holds no study, or they cannot be compared.
    """
    return compare_studies(_study(first, storage), _study(second, storage))


def _study(run_dir: Path, storage: str | None) -> Study:
    url = None if RunDirectory(run_dir).journal.is_file() else storage
    with open_study(run_dir, url) as (opened, name):
        return Study(str(run_dir), read_study(opened, name), str(read_identity(opened, name)["data"]))
