"""What is stored or shown holds no secret, and what is none is left alone."""

from __future__ import annotations

from typing import Any

import pytest

from automl_prune.redaction import command_without_secrets, redacted, without_secrets


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("postgresql://me:p@ss:w@host/db", "postgresql://me@host/db"),
        ("postgresql://me@host/db", "postgresql://me@host/db"),
        ("https://abc123@host/x", "https://***@host/x"),
        ("https://h/x?a=1&password=p&b=2", "https://h/x?a=1&password=***&b=2"),
        ("automl-prune train c.yaml --set data.root=/a:b@c", "automl-prune train c.yaml --set data.root=/a:b@c"),
    ],
)
def test_texts(text: str, expected: str) -> None:
    assert without_secrets(text) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"password": 123}, {"password": "***"}),
        ({"api_keys": ["a", "b"]}, {"api_keys": "***"}),
        ({"s3": {"aws_secret_access_key": "abc"}}, {"s3": {"aws_secret_access_key": "***"}}),
        ({"secret": {"a": "b"}}, {"secret": "***"}),
        ({"hf_token": "abc", "tokens": "x"}, {"hf_token": "***", "tokens": "***"}),
        ({"class_token": "cls", "num_tokens": 4}, {"class_token": "cls", "num_tokens": 4}),
        ({"class_token": True, "password": None}, {"class_token": True, "password": None}),
        ({0: "cat", "keys": ["a"]}, {0: "cat", "keys": ["a"]}),
    ],
)
def test_values(given: Any, expected: Any) -> None:
    assert redacted(given) == expected


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("data.api_key=XYZ", "'data.api_key=***'"),
        ("data.password=a b", "'data.password=***'"),
        ("data={name: x, password: abc}", "'data=***'"),
        ("data.root=/data", "data.root=/data"),
        ("mlflow:https://me:pw@host?x=1", "'mlflow:https://me@host?x=1'"),
    ],
)
def test_arguments_of_a_command(word: str, expected: str) -> None:
    assert command_without_secrets(["automl-prune", "train", "--set", word]) == f"automl-prune train --set {expected}"
