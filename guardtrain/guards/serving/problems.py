"""What a client is told where there is no answer: problem details (RFC 9457), under a status."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field

MEDIA_TYPE = "application/problem+json"

# What each status means here, for the OpenAPI document.
STATUSES = {
    400: "The body is not what its Content-Type says: JSON or multipart that is malformed or ends early.",
    404: "There is nothing at this path.",
    405: "This path takes another method.",
    408: "The body did not arrive in time.",
    413: "The body is larger than this service takes, or its images have more pixels together.",
    415: "The body is neither JSON nor multipart/form-data.",
    422: "The request was understood and is wrong: an unknown point, no image that can be read, another embedding.",
    429: "Too much is waiting; come back after `Retry-After` seconds.",
    500: "A fault of this service.",
    503: "No answer in time, or the service is about to end; come back after `Retry-After` seconds.",
}
RETRY_SECONDS = 1


# In errors of libraries: bytes of what was sent, which are of no use to a person.
_BYTES = re.compile(r"""(: the file begins with )?\bb(['"])(?:\\.|(?!\2).)*\2""")


def without_bytes(text: str) -> str:
    """An error's text without the bytes that it quotes.

    >>> without_bytes("not an image of a known format: the file begins with b'<html>'")
    'not an image of a known format'
    """
    return _BYTES.sub(lambda found: "" if found[1] else "…", text)


def readable(text: str) -> str:
    """A name of a client's, short and of plain letters: enough to find it, and nothing more of what was sent.

    >>> readable("colour"), readable("<b>\0é")
    ('colour', '…b…')
    """
    return re.sub(r"[^\w./+ -]+", "…", text[:60], flags=re.ASCII)


class ProblemDetails(BaseModel):
    """Why there is no answer."""

    type: str = Field(default="about:blank", description="Always `about:blank`: the status says the kind.")
    title: str = Field(description="The status in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What was wrong, what is allowed, what to do.")
    where: str | None = Field(default=None, description="Which part of the request, such as `images[2]`.")


class Problem(Exception):
    """Ends a request with this status."""

    def __init__(self, status: int, detail: str, where: str | None = None) -> None:
        super().__init__(detail)
        self.status, self.detail, self.where = status, detail, where

    def response(self, headers: dict[str, str] | None = None) -> JSONResponse:
        """The answer to the client."""
        sent = dict(headers or {})
        if self.status in (429, 503):
            sent["Retry-After"] = str(RETRY_SECONDS)
        if self.status in (408, 413):
            sent["Connection"] = "close"  # the rest of the body is not read
        content = ProblemDetails(
            title=HTTPStatus(self.status).phrase, status=self.status, detail=self.detail, where=self.where
        )
        return JSONResponse(content.model_dump(), self.status, sent, MEDIA_TYPE)


def problem_responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a FastAPI route that ends in these statuses, too."""
    schema = {"$ref": f"#/components/schemas/{ProblemDetails.__name__}"}
    return {
        status: {"description": STATUSES[status], "content": {MEDIA_TYPE: {"schema": schema}}} for status in statuses
    }
