"""Keep secrets out of what is tracked: by the names of settings, and in URLs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

HIDDEN = "***"
_SECRET = re.compile(
    r"(^|[_.-])(token|secret|passwd|password|credentials?|authorization|storage_options|connection_string"
    r"|(api|access|account|private|secret)_?key|sas)$",
    re.IGNORECASE,
)
_USER = re.compile(r"(?<=://)[^/@\s]+(?=@)")
_SIGNED = re.compile(r"([?&][^=&\s]*(?:sig|signature|token|secret|key|credential)[^=&\s]*=)[^&\s]+", re.IGNORECASE)


def redacted(value: Any, name: str = "") -> Any:
    """Plain data without what its name or its place in a URL says is secret.

    >>> redacted({"token": "abc", "path": "s3://me:pw@host/x?X-Amz-Signature=12", "max_tokens": 8})
    {'token': '***', 'path': 's3://***@host/x?X-Amz-Signature=***', 'max_tokens': 8}
    """
    if _SECRET.search(name) and value not in (None, "", {}):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(key): redacted(each, str(key)) for key, each in value.items()}
    if isinstance(value, str):
        return _SIGNED.sub(rf"\1{HIDDEN}", _USER.sub(HIDDEN, value))
    if isinstance(value, Sequence):
        return [redacted(each) for each in value]
    return value


def redacted_arguments(arguments: Sequence[str]) -> list[str]:
    """Overrides of a command line (`a.b=VALUE`) without secrets.

    >>> redacted_arguments(["curve", "+data.real.token=abc", "head=mlp"])
    ['curve', '+data.real.token=***', 'head=mlp']
    """
    out = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        out.append(f"{name}={redacted(value, name)}" if equals else redacted(argument))
    return out
