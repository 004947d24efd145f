"""Texts and plain values without the passwords and tokens in them, for whatever is stored or shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from typing import Any

_PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]*):[^/\s]*@")
_TOKEN_IN_URL = re.compile(r"(https?://)[^/\s:@]+@", re.IGNORECASE)
_SECRET = r"(?:passwords?|passwds?|pwd|passphrases?|secrets?|credentials?|(?:api|access|private)[-_]?keys?)"
_TOKEN = r"(?<!class_)(?<!cls_)tokens?"  # a transformer's class token is none
_SECRET_QUERY = re.compile(rf"((?:{_SECRET}|{_TOKEN})=)[^&\s]*", re.IGNORECASE)
_SECRET_KEY = re.compile(rf".*{_SECRET}", re.IGNORECASE)
_TOKEN_KEY = re.compile(rf".*{_TOKEN}", re.IGNORECASE)
_SECRET_INSIDE = re.compile(rf"(?:{_SECRET}|{_TOKEN})['\"]?\s*:", re.IGNORECASE)
_HIDDEN = "***"


def without_secrets(text: str) -> str:
    """A text without the passwords and tokens of URLs and of ``password=...``."""
    text = _PASSWORD_IN_URL.sub(r"\1@", _TOKEN_IN_URL.sub(rf"\1{_HIDDEN}@", text))
    return _SECRET_QUERY.sub(rf"\1{_HIDDEN}", text)


def command_without_secrets(words: Sequence[str]) -> str:
    """A command's line for a shell, without the passwords and tokens in its arguments (``--set data.password=...``)."""
    return shlex.join(map(_argument, words))


def redacted(value: Any) -> Any:
    """Plain values without the passwords and tokens in them."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, list):
        return [redacted(item) for item in value]
    if isinstance(value, dict):
        return {key: _HIDDEN if _is_secret(str(key), item) else redacted(item) for key, item in value.items()}
    return value


def _is_secret(key: str, value: Any) -> bool:
    """Whether a key names something secret: a number of tokens is none, a password of digits is."""
    if value is None or isinstance(value, bool):
        return False
    return bool(_SECRET_KEY.fullmatch(key) or (_TOKEN_KEY.fullmatch(key) and not isinstance(value, int | float)))


def _argument(word: str) -> str:
    name, equals, value = word.partition("=")
    if equals and "://" not in name and (_is_secret(name, value) or _SECRET_INSIDE.search(value)):
        return f"{name}={_HIDDEN}"
    return without_secrets(word)
