"""A database that does not take what a request asks of it: told in a sentence, at once, and logged once a minute."""

import logging
from collections.abc import Callable

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from simulations import database

log = logging.getLogger(__name__)
RETRY_AFTER_SECONDS = 5


class DatabaseTrouble:
    """503 where it is locked, full, read-only, behind or away. Nothing was done: each write is one transaction."""

    sync_capable, async_capable = True, False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        return answer(request, error)


def answer(request: HttpRequest, error: Exception) -> HttpResponse | None:
    """None where it is not the database's state that stands in the way."""
    if not database.is_trouble(error):
        return None
    database.complain(log, error, f"{request.method} {request.path_info} was answered with 503")
    sentence = f"This cannot be done now: {database.reason(error)}. Nothing was changed; try again later"
    if request.path_info.startswith("/api/"):
        response: HttpResponse = JsonResponse({"detail": sentence}, status=503)
    else:
        response = render(request, "503.html", {"sentence": sentence}, status=503)
    response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return response
