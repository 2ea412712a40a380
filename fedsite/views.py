"""What load balancers ask, and the pages of a refused form and of an address that is not there."""

from collections.abc import Callable

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.views import redirect_to_login
from django.db import connection
from django.db.utils import Error
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render

from fedsite.migrated import unapplied


def healthz(request: HttpRequest) -> JsonResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


def readyz(request: HttpRequest) -> JsonResponse:
    """The data base answers and has every migration."""
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
        missing = unapplied()
    except Error as error:
        return JsonResponse({"status": "unavailable", "detail": f"The data base does not answer: {error}"}, status=503)
    if missing:
        return JsonResponse({"status": "unavailable", "detail": f"{len(missing)} migrations are missing"}, status=503)
    return JsonResponse({"status": "ok"})


def admin_sign_in(request: HttpRequest) -> HttpResponse:
    """The site's own page in place of the admin's, so that guessing is slowed down there too."""
    return redirect_to_login(request.GET.get(REDIRECT_FIELD_NAME, "/admin/"))


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return render(request, "403.html", {"reason": reason}, status=403)


class PlainNotFound:
    """The site's own page for an address that is not there, in DEBUG too, where Django would show its insides."""

    sync_capable, async_capable = True, False
    ELSEWHERE = ("/api/", "/admin/", "/static/")  # these have their own

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        if settings.DEBUG and response.status_code == 404 and not request.path.startswith(self.ELSEWHERE):
            return render(request, "404.html", status=404)
        return response
