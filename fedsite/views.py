"""What load balancers ask, and the page of a refused form."""

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


def csrf_failure(request: HttpRequest, reason: str = "") -> HttpResponse:
    return render(request, "403.html", {"reason": reason}, status=403)
