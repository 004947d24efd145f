"""Texts and plain values without the passwords and tokens in them, for whatever is stored or shown."""

from __future__ import annotations

import re
from typing import Any

_PASSWORD_IN_URL = re.compile(r"(://[^/\s:@]*):[^/\s]*@")
_SECRET_QUERY = re.compile(r"((?:password|passwd|pwd|token|secret)=)[^&\s]*", re.IGNORECASE)
_SECRET_KEY = re.compile(r".*(password|passwd|pwd|token|secret|api_key)", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """A text without the passwords and tokens of URLs and of ``password=...``."""
    return _SECRET_QUERY.sub(r"\1***", _PASSWORD_IN_URL.sub(r"\1@", text))


def redacted(value: Any) -> Any:
    """Plain values without the passwords and tokens in them."""
    if isinstance(value, str):
        return without_secrets(value)
    if isinstance(value, list):
        return [redacted(item) for item in value]
    if isinstance(value, dict):
        return {
            key: "***" if isinstance(item, str) and _SECRET_KEY.fullmatch(key) else redacted(item)
            for key, item in value.items()
        }
    return value
