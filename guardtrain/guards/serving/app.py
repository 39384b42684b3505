"""The web service's routes, as a FastAPI application."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from guardtrain.guards.directory import NEIGHBOURS
from guardtrain.guards.operating_points import Point, ThreeWay
from guardtrain.guards.serving.messages import GuardAnswer, Limits, PointAnswer, PredictAnswer, PredictRequest, State
from guardtrain.guards.serving.page import page
from guardtrain.guards.serving.problems import Problem, ProblemDetails, problem_responses
from guardtrain.guards.serving.reading import FILE_FIELDS, MEGABYTE, read_asked
from guardtrain.guards.serving.service import GuardService
from guardtrain.version import __version__

# Of the guard's config: told elsewhere, or of no use to a client.
_INTERNAL = ("files", "sha256", "operating_points", "category_points", "encoder")
_REFERENCE = "#/components/schemas/{model}"
_FORM = {
    "type": "object",
    "required": [FILE_FIELDS[0]],
    "properties": {
        FILE_FIELDS[0]: {
            "type": "array",
            "minItems": 1,
            "items": {"type": "string", "contentMediaType": "application/octet-stream", "format": "binary"},
            "description": "One or more image files, each a part of this name.",
        },
        "point": {"type": "string", "description": "The operating point; default: the guard's own."},
        "explain": {"type": "integer", "minimum": 0, "description": "How many nearest training examples to name."},
    },
    "additionalProperties": False,
}
_PREDICT_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {"schema": _FORM},
        "application/json": {"schema": {"$ref": _REFERENCE.format(model=PredictRequest.__name__)}},
    },
}


def create_app(service: GuardService) -> FastAPI:
    """The application.

    Args:
        service: the guard; closed when the application ends.
    """
    settings, points, name = service.settings, service.guard.points, service.guard.name

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None, None]:
        yield
        service.batcher.close(settings.shutdown_s)

    app = FastAPI(
        title=f"guardtrain: {name}",
        version=__version__,
        description="Probabilities that images are unsafe, and decisions at the guard's operating points.",
        lifespan=lifespan,
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.add_middleware(_Measured, service=service)
    _tell_problems(app)

    about_point = "The operating point of `decision`; default: the guard's own."
    point_asked = Query(None, description=about_point, json_schema_extra={"enum": list(points)})
    explain_asked = Query(None, ge=0, le=settings.max_explain, description="How many nearest training images to name.")

    @app.post(
        "/v1/predict",
        summary="Judge images, or embeddings",
        responses=problem_responses(400, 408, 413, 415, 422, 429, 500, 503),
        openapi_extra={"requestBody": _PREDICT_BODY},
    )
    async def predict(
        request: Request,
        point: str | None = point_asked,
        explain: int | None = explain_asked,
    ) -> PredictAnswer:
        most = int(settings.max_body_mb * MEGABYTE)
        async with service.buffers.body(request, most, settings.timeout_s) as body:
            asked = await read_asked(request.headers.get("content-type", ""), body, settings)
            for key, given, said in (("point", point, asked.point), ("explain", explain, asked.explain)):
                if None not in (given, said) and given != said:
                    raise Problem(422, f"The query and the body give different values of `{key}`.", key)
            point = asked.point if point is None else point
            return await service.answer(asked, point, asked.explain if explain is None else explain)

    @app.get("/v1/guard", summary="What the guard is, and what it may be sent")
    async def guard() -> GuardAnswer:
        return described(service)

    @app.get("/healthz", summary="Whether the process is alive")
    async def healthz() -> State:
        return State(status="alive")

    @app.get("/readyz", summary="Whether requests are taken", responses=problem_responses(503))
    async def readyz() -> State:
        if not service.batcher.alive:
            raise Problem(503, "The service is about to end.")
        return State(status="ready")

    @app.get(
        "/metrics",
        summary="Counts and times, for Prometheus",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=service.metrics.content_type)

    if settings.page:

        @app.get("/", include_in_schema=False)
        async def root() -> HTMLResponse:
            html, headers = page(name)
            return HTMLResponse(html, headers=headers)

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    service.metrics.guard.info({"name": name, "encoder": service.guard.spec.label, "version": __version__})
    return app


def described(service: GuardService) -> GuardAnswer:
    """Return what `/v1/guard` tells."""
    guard, settings = service.guard, service.settings
    spec, points = guard.spec, guard.points
    encoder = {
        "name": spec.label,
        "fingerprint": spec.fingerprint,
        "dimension": spec.dim,
        "image_size": spec.image_size,
    }
    limits = Limits(**{key: getattr(settings, key) for key in Limits.model_fields})
    return GuardAnswer(
        name=guard.name,
        guardtrain=__version__,
        encoder=encoder | {"reads_images": service.judge.reads_images},
        points=[
            PointAnswer(
                name=key,
                default=key == points.default,
                decision="three_way" if isinstance(point, ThreeWay) else "two_way",
                thresholds=guard.calibrator.probabilities(np.array(_thresholds(point))).tolist(),
                text=point.line,
            )
            for key, point in points.items()
        ],
        categories=list(guard.category_head.names) if guard.category_head is not None else [],
        explains=NEIGHBOURS in guard.about["files"],
        frames=settings.frames,
        limits=limits,
        about={key: value for key, value in guard.about.items() if key not in _INTERNAL},
    )


def _thresholds(point: Point) -> list[float]:
    return [point.lower, point.upper] if isinstance(point, ThreeWay) else [point.threshold]


def _document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the models that a route reads by itself."""
    document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    schemas = document.setdefault("components", {}).setdefault("schemas", {})
    for model in (PredictRequest, ProblemDetails):
        schema = model.model_json_schema(ref_template=_REFERENCE)
        schemas |= schema.pop("$defs", {}) | {model.__name__: schema}
    # either of the two, which a pydantic model does not say
    either = [{"required": [name], "properties": {name: {"type": "array"}}} for name in ("images", "embeddings")]
    schemas[PredictRequest.__name__]["oneOf"] = either
    return document


def _tell_problems(app: FastAPI) -> None:
    """Whatever goes wrong is told in one form, and repeats nothing that was sent."""

    async def problem(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, Problem)
        return error.response()

    async def http(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return Problem(error.status_code, str(error.detail)).response(dict(error.headers or {}))

    async def invalid(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        return Problem(422, f"{first['loc'][-1]}: {first['msg']}.", str(first["loc"][-1])).response()

    async def fault(_: Request, error: Exception) -> JSONResponse:
        return Problem(500, "A fault of this service; its log has the details.").response()

    handlers: list[tuple[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]] = [
        (Problem, problem),
        (HTTPException, http),
        (RequestValidationError, invalid),
        (Exception, fault),
    ]
    for kind, handler in handlers:
        app.add_exception_handler(kind, handler)


class _Measured:
    """Counts requests and their time by route."""

    def __init__(self, app: ASGIApp, service: GuardService) -> None:
        self.app, self.metrics = app, service.metrics
        self.routes = {"/", "/v1/predict", "/v1/guard", "/healthz", "/readyz", "/metrics", "/openapi.json"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        route = scope["path"] if scope["path"] in self.routes else "other"  # a client's own paths would be endless
        started, status = time.perf_counter(), 500

        async def told(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, told)
        finally:
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)
