"""The root of the JSON API: routers of the apps, one shape of errors, one rule for writes."""

from django.http import HttpRequest, HttpResponse
from ninja import NinjaAPI
from ninja.errors import ValidationError

from fedsite.access import may_write
from incentives.api import router as incentives
from simulations.api import router as simulations
from simulations.lifecycle import Conflict, QueueFull
from simulations.owners import NotYours
from training.config import ConfigError

api = NinjaAPI(title="fedsite", version="1", description=__doc__, auth=may_write)
api.add_router("/simulations/", simulations)
api.add_router("/incentives/", incentives)


@api.exception_handler(ConfigError)
def bad_config(request: HttpRequest, error: ConfigError) -> HttpResponse:
    return api.create_response(request, {"detail": str(error), "errors": error.errors}, status=422)


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
