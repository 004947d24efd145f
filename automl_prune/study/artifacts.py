"""Files that belong to a study, in a folder or in S3, each known by its digest: a worker elsewhere needs no copying."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from optuna.artifacts import Boto3ArtifactStore, FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound

from automl_prune.errors import CheckpointError, StudyError
from automl_prune.files import atomic_path, sha256

_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_S3 = re.compile(r"s3://(?P<bucket>[A-Za-z0-9][A-Za-z0-9.-]*)(?:/(?P<prefix>.*))?")


@dataclass(frozen=True, slots=True)
class Artifact:
    """A file in an artifact store.

    Attributes:
        key: Its name there: letters, digits, ``.``, ``-`` and ``_``, so that no key leads out of the store.
        sha256: Hexadecimal digest of its content.
    """

    key: str
    sha256: str

    def __post_init__(self) -> None:
        if not _PLAIN.fullmatch(self.key):
            raise StudyError(f"{self.key!r} is no name of a study's file; the study was not written by automl-prune")

    @property
    def is_copy(self) -> bool:
        """Whether it is called by its content, as what was copied into a store is."""
        return self.key.startswith(f"{self.sha256[:32]}-")

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready dictionary."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Any) -> Artifact:
        """Rebuild a record; a malformed one raises ``StudyError``."""
        if not isinstance(value, Mapping) or {*value} != {"key", "sha256"} or not all(map(_is_text, value.values())):
            raise StudyError(f"{value!r} is no record of a study's file; the study was not written by automl-prune")
        return cls(value["key"], value["sha256"])


class Folder:
    """A folder that every worker can read; a file that lies in it already is not copied."""

    def __init__(self, path: Path) -> None:
        self.location = str(path.resolve())
        self._path = path.resolve()

    def put(self, path: Path, digest: str) -> Artifact:
        """Store a file."""
        if path.resolve().parent == self._path:
            return Artifact(path.name, digest)
        artifact = Artifact(f"{digest[:32]}-{path.name}", digest)
        with atomic_path(self._path / artifact.key) as temporary, path.open("rb") as content:
            FileSystemArtifactStore(temporary.parent).write(temporary.name, content)
        return artifact

    def get(self, artifact: Artifact, directory: Path) -> Path:
        """The file itself: ``directory`` is not needed."""
        path = self._path / artifact.key
        _verify(path, artifact, self.location)
        return path

    def remove(self, artifact: Artifact) -> None:
        """Delete a copy that ``put`` made; one that is gone is no error, and other files are left alone."""
        if artifact.is_copy:
            (self._path / artifact.key).unlink(missing_ok=True)


class Bucket:
    """A prefix in a bucket of S3 or of what speaks its protocol; credentials are boto3's own (environment, profile)."""

    def __init__(self, bucket: str, prefix: str) -> None:
        self.location = f"s3://{bucket}/{prefix}" if prefix else f"s3://{bucket}"
        self._prefix = f"{prefix.strip('/')}/" if prefix.strip("/") else ""
        try:
            self._store = Boto3ArtifactStore(bucket)
        except ImportError as error:
            raise StudyError("artifacts in S3 need boto3; install it with: pip install 'automl-prune[s3]'") from error

    def put(self, path: Path, digest: str) -> Artifact:
        """Upload a file."""
        artifact = Artifact(f"{digest[:32]}-{path.name}", digest)
        with _said(self.location), path.open("rb") as content:
            self._store.write(self._prefix + artifact.key, content)
        return artifact

    def get(self, artifact: Artifact, directory: Path) -> Path:
        """Download a file into ``directory``, verified before it gets its name."""
        path = directory / artifact.key
        with atomic_path(path) as temporary, _said(self.location):
            with self._store.open_reader(self._prefix + artifact.key) as source, temporary.open("wb") as target:
                shutil.copyfileobj(source, target)
            _verify(temporary, artifact, self.location)
        return path

    def remove(self, artifact: Artifact) -> None:
        """Delete what ``put`` stored; what is gone is no error, and other files are left alone."""
        if artifact.is_copy:
            with _said(self.location):
                self._store.remove(self._prefix + artifact.key)


class _said:  # noqa: N801  # used as a statement
    """Turns what a store raises into an error that says where."""

    def __init__(self, location: str) -> None:
        self._location = location

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ArtifactNotFound):
            raise CheckpointError(f"a file of the study is missing in {self._location}; run the search again") from None
        if isinstance(error, Exception) and not isinstance(error, CheckpointError):
            raise StudyError(
                f"artifacts in {self._location} cannot be reached ({error}); check the bucket and its credentials"
            ) from None


def open_artifacts(location: str | Path) -> Folder | Bucket:
    """The store at a path or ``s3://bucket/prefix``.

    Raises:
        StudyError: It is neither, or a library is missing.
    """
    text = str(location)
    if "://" not in text:
        return Folder(Path(text).expanduser())
    found = _S3.fullmatch(text)
    if found is None:
        raise StudyError(f"--artifacts is {text!r}; give a folder or s3://bucket/prefix")
    return Bucket(found["bucket"], found["prefix"] or "")


def publish(store: Folder | Bucket, files: Mapping[str, Path], known: Mapping[str, Artifact]) -> dict[str, Artifact]:
    """Store files by name, except those that ``known`` holds already; names whose file is absent are left out."""
    found = {}
    for name, path in files.items():
        if path.is_file():
            digest = sha256(path)
            same = name in known and known[name].sha256 == digest
            found[name] = known[name] if same else store.put(path, digest)
    return found


def _verify(path: Path, artifact: Artifact, location: str) -> None:
    if not path.is_file():
        raise CheckpointError(f"{artifact.key} of the study is missing in {location}; run the search again")
    if sha256(path) != artifact.sha256:
        raise CheckpointError(
            f"{artifact.key} in {location} is not the file that the study was started with (another SHA-256); it was "
            "changed or damaged and is not used: run the search again to restore it"
        )


def _is_text(value: object) -> bool:
    return isinstance(value, str)
