"""Files of a study in a folder and in S3: known by their digests, and never led out of the store."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any, BinaryIO

import boto3
import pytest
from botocore.exceptions import ClientError

from automl_prune.errors import CheckpointError, StudyError
from automl_prune.files import sha256
from automl_prune.study.artifacts import Artifact, Bucket, Folder, open_artifacts, publish

CONTENT = b"weights of a network"


class FakeS3:
    """The calls that Optuna's store makes, on a dictionary."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], bytes] = {}

    def upload_fileobj(self, source: BinaryIO, bucket: str, key: str) -> None:
        self.objects[bucket, key] = source.read()

    def get_object(self, Bucket: str, Key: str) -> dict[str, Any]:
        if (Bucket, Key) not in self.objects:
            raise ClientError({"Error": {"Code": "NoSuchKey"}}, "GetObject")
        return {"Body": io.BytesIO(self.objects[Bucket, Key])}

    def delete_object(self, Bucket: str, Key: str) -> None:
        self.objects.pop((Bucket, Key), None)


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> FakeS3:
    fake = FakeS3()
    monkeypatch.setattr(boto3, "client", lambda service: fake)
    return fake


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "run" / "baseline.safetensors"
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    return path


def test_a_file_of_the_run_directory_is_not_copied(file: Path) -> None:
    store = Folder(file.parent)
    found = publish(store, {"baseline": file, "absent": file.with_name("none")}, {})
    assert found == {"baseline": Artifact("baseline.safetensors", sha256(file))}
    assert store.get(found["baseline"], file.parent) == file
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_a_shared_folder_holds_what_was_published(file: Path, tmp_path: Path) -> None:
    store = open_artifacts(tmp_path / "shared")
    artifact = publish(store, {"baseline": file}, {})["baseline"]
    file.unlink()
    assert open_artifacts(str(tmp_path / "shared")).get(artifact, tmp_path).read_bytes() == CONTENT


def test_a_bucket_holds_what_was_published_once(file: Path, tmp_path: Path, s3: FakeS3) -> None:
    store = open_artifacts("s3://models/prune/flowers")
    assert isinstance(store, Bucket)
    found = publish(store, {"baseline": file}, {})
    ((bucket, key),) = s3.objects
    assert (bucket, key) == ("models", f"prune/flowers/{found['baseline'].key}")
    s3.objects[bucket, key] = CONTENT + b"!"
    assert publish(store, {"baseline": file}, found) == found
    with pytest.raises(CheckpointError, match=r"s3://models/prune/flowers is not the file"):
        store.get(found["baseline"], tmp_path)
    assert not list(tmp_path.glob("*baseline*")), "what is not verified gets no name"
    s3.objects[bucket, key] = CONTENT
    assert store.get(found["baseline"], tmp_path).read_bytes() == CONTENT
    s3.objects.clear()
    with pytest.raises(CheckpointError, match="missing in s3://models/prune/flowers"):
        store.get(found["baseline"], tmp_path)


def test_a_bucket_out_of_reach_is_one_message(s3: FakeS3, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise ClientError({"Error": {"Code": "AccessDenied"}}, "PutObject")

    monkeypatch.setattr(s3, "upload_fileobj", refuse)
    with pytest.raises(StudyError, match=r"s3://models cannot be reached .*AccessDenied"):
        publish(open_artifacts("s3://models"), {"baseline": file}, {})


@pytest.mark.parametrize("key", ["../secret", "/etc/passwd", "a/b", "", ".hidden", "a\0b", "a b"])
def test_no_key_leads_out_of_the_store(key: str) -> None:
    with pytest.raises(StudyError, match="no name of a study's file"):
        Artifact.from_json({"key": key, "sha256": "0"})


@pytest.mark.parametrize(
    "value", [None, [], {"key": "a"}, {"key": "a", "sha256": 1}, {"key": "a", "sha256": "0", "x": ""}]
)
def test_a_malformed_record_is_refused(value: object) -> None:
    with pytest.raises(StudyError, match="no record of a study's file"):
        Artifact.from_json(value)


@pytest.mark.parametrize("location", ["ftp://host/x", "s3://", "s3:///prefix"])
def test_other_locations_are_refused(location: str) -> None:
    with pytest.raises(StudyError, match="give a folder or s3://bucket/prefix"):
        open_artifacts(location)


@pytest.mark.parametrize("location", ["folder", "s3://bucket/prefix"])
def test_only_copies_are_removed(location: str, file: Path, s3: FakeS3) -> None:
    store = open_artifacts(location if "://" in location else file.parent)
    elsewhere = file.parent.parent / "made.safetensors"
    elsewhere.write_bytes(CONTENT)
    copy = store.put(elsewhere, sha256(elsewhere))
    store.remove(copy)
    store.remove(copy)
    store.remove(Artifact(file.name, sha256(file)))
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    assert not s3.objects
