"""The root of the JSON API: routers of the apps, one shape of errors, one rule for writes."""

from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.core.exceptions import BadRequest, RequestDataTooBig, SuspiciousOperation
from django.db import Error
from django.http import HttpRequest, HttpResponse, UnreadablePostError
from django.http.multipartparser import MultiPartParserError
from django.views.decorators.http import require_safe
from ninja import NinjaAPI
from ninja.errors import HttpError, ValidationError
from ninja.operation import Operation
from ninja.parser import Parser

from fedsite import trouble
from fedsite.access import may_write
from incentives.api import router as incentives
from simulations import reading
from simulations.owners import NotYours
from simulations.running.lifecycle import Conflict, QueueFull
from simulations.showing.api import describe_kinds
from simulations.showing.api import router as simulations
from simulations.showing.auditing import router as audits
from simulations.showing.economies import router as economies
from simulations.showing.planning import router as planning
from training.config import ConfigError

PROBLEM = {"application/json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
HEADERS = {  # that an answer always has
    401: {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}},
    429: {"Retry-After": {"required": True, "description": "seconds", "schema": {"type": "integer", "minimum": 0}}},
}
HEADERS[503] = HEADERS[429]
ANYWHERE = (400, 401, 403, 422, 429, 503)  # whoever asks, however often, and whatever is wrong with it or its address
OF_WRITES = (415,)
EMPTY = {"content": {"application/json": {"schema": {}}}}
WHO = {
    "token": {"type": "http", "scheme": "bearer", "description": "a token from the account page"},
    "session": {"type": "apiKey", "in": "cookie", "name": settings.SESSION_COOKIE_NAME},
}


class Api(NinjaAPI):
    """Documents too how a program says who it is, and what it may be answered before its operation is asked."""

    def get_openapi_operation_id(self, operation: Operation) -> str:
        """`simulations_api_start`: programs are generated from these names, so they do not follow files that move."""
        app = operation.view_func.__module__.partition(".")[0]
        return f"{app}_api_{operation.view_func.__name__}"

    def get_openapi_schema(self, **path: Any) -> dict[str, Any]:
        describe_kinds()
        schema = super().get_openapi_schema(**path)
        schema["components"]["securitySchemes"] = WHO
        anybody = [{}] if settings.FEDSITE_ACCESS == "open" else []
        schema["security"] = [*anybody, *({name: []} for name in WHO)]
        for operations in schema["paths"].values():
            for method, operation in operations.items():
                _document(operation, ANYWHERE + (OF_WRITES if method == "post" else ()))
                if method == "post":
                    operation.setdefault("requestBody", dict(EMPTY))
                    operation["requestBody"] |= {"required": True} if anybody else {}
        return schema


def _document(operation: dict[str, Any], refusals: tuple[int, ...]) -> None:
    answers = {int(status): answer for status, answer in operation["responses"].items()}
    for status in refusals:
        answers.setdefault(status, {"description": HTTPStatus(status).phrase, "content": PROBLEM})
    for status in HEADERS.keys() & answers.keys():
        answers[status]["headers"] = HEADERS[status]
    operation["responses"] = {str(status): answers[status] for status in sorted(answers)}
    for parameter in operation["parameters"]:
        parameter["schema"] = _without_null(parameter["schema"])


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter is left out where it is none; an address has no other spelling for that."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind != {"type": "null"}]
    return {key: value for key, value in schema.items() if key != "anyOf"} | kinds[0] if kinds else schema


class BodyReader(Parser):
    """Bodies are read as those of simulations are. ninja hides what is raised here behind an HttpError of its own."""

    def parse_body(self, request: HttpRequest) -> Any:
        return reading.value(request.body)


api = Api(
    title="fedsite", version="1", description=__doc__, auth=may_write, parser=BodyReader(), docs_decorator=require_safe
)
api.add_router("/simulations/", simulations)
api.add_router("/simulations/", economies)
api.add_router("/simulations/", audits)
api.add_router("/incentives/", incentives)
api.add_router("/", planning)


@api.exception_handler(ConfigError)
def bad_config(request: HttpRequest, error: ConfigError) -> HttpResponse:
    return api.create_response(request, {"detail": str(error), "errors": error.errors}, status=422)


@api.exception_handler(reading.Unreadable)
def unreadable(request: HttpRequest, error: reading.Unreadable) -> HttpResponse:
    if isinstance(error, reading.NotJson):
        return api.create_response(request, {"detail": f"The body {error}"}, status=400)
    named = {error.field or "body": str(error)}
    detail = "; ".join(f"{name}: {text}" for name, text in named.items())
    return api.create_response(request, {"detail": detail, "errors": named}, status=422)


@api.exception_handler(HttpError)
def refused(request: HttpRequest, error: HttpError) -> HttpResponse:
    if isinstance(error.__cause__, reading.Unreadable):
        return unreadable(request, error.__cause__)
    return api.create_response(request, {"detail": str(error)}, status=error.status_code)


@api.exception_handler(SuspiciousOperation)
@api.exception_handler(BadRequest)
@api.exception_handler(MultiPartParserError)
@api.exception_handler(UnreadablePostError)
def malformed(request: HttpRequest, error: Exception) -> HttpResponse:
    """Django refuses by exceptions, which ninja would take for our faults."""
    too_large = isinstance(error, RequestDataTooBig)
    detail = "The body is too large" if too_large else "The request is not what it should be"
    return api.create_response(request, {"detail": detail}, status=413 if too_large else 400)


@api.exception_handler(Error)
def database_trouble(request: HttpRequest, error: Error) -> HttpResponse:
    """Here too, since in DEBUG ninja would answer before the middleware is asked."""
    if (response := trouble.answer(request, error)) is None:
        raise error
    return response


@api.exception_handler(Conflict)
def conflict(request: HttpRequest, error: Conflict) -> HttpResponse:
    return api.create_response(request, {"detail": str(error)}, status=409)


@api.exception_handler(NotYours)
def not_yours(request: HttpRequest, error: NotYours) -> HttpResponse:
    return api.create_response(request, {"detail": str(error)}, status=403)


@api.exception_handler(QueueFull)
def queue_full(request: HttpRequest, error: QueueFull) -> HttpResponse:
    response = api.create_response(request, {"detail": str(error)}, status=429)
    response["Retry-After"] = "30"
    return response


@api.exception_handler(ValidationError)
def bad_input(request: HttpRequest, error: ValidationError) -> HttpResponse:
    errors = {_field(item["loc"]): item["msg"] for item in error.errors}
    detail = "; ".join(f"{name}: {text}" for name, text in errors.items())
    return api.create_response(request, {"detail": detail, "errors": errors}, status=422)


def _field(location: tuple) -> str:
    """The field's own name of pydantic's ("body", "payload", "num_clients")."""
    parts = [str(part) for part in location if part not in ("body", "query", "path", "header", "payload")]
    return ".".join(parts) or str(location[0])
