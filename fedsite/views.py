"""What load balancers and Prometheus ask, and the pages of a refused form and of an address that is not there."""

import hmac
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth import REDIRECT_FIELD_NAME
from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import render
from django.urls import reverse
from django.views.decorators.http import require_safe
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from fedsite import ready
from simulations.running import bell
from simulations.showing.metrics import registry

# What proxies say of themselves; none of it comes from a program that asks by itself.
PASSED_ON = {"Forwarded", "Via", "X-Real-Ip", *(f"X-Forwarded-{what}" for what in ("For", "Host", "Port", "Proto"))}


@login_not_required
@require_safe
def healthz(request: HttpRequest) -> JsonResponse:
    """The process answers."""
    return JsonResponse({"status": "ok"})


@login_not_required
@require_safe
def readyz(request: HttpRequest) -> JsonResponse:
    """The database answers, has every migration and can be written, and no disk is full. Without its Redis the site
    is slower, and ready all the same."""
    if problem := ready.problem():
        return JsonResponse({"status": "unavailable", "detail": problem}, status=503)
    redis = {"redis": "down" if bell.problem() else "up"} if settings.REDIS_URL else {}
    return JsonResponse({"status": "ok", **redis})


@login_not_required
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """This process and the database, for Prometheus. Asks by itself who may read it."""
    if not may_read_metrics(request):
        return JsonResponse({"detail": "Metrics are for who knows FEDSITE_METRICS_TOKEN"}, status=403)
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE_LATEST)


def may_read_metrics(request: HttpRequest) -> bool:
    """With FEDSITE_METRICS_TOKEN whoever has it. Without one, in open access, programs on this machine: a proxy on
    this machine that adds no header cannot be told from them, so with visitors to keep out there is no other way in."""
    if token := settings.FEDSITE_METRICS_TOKEN:
        return hmac.compare_digest(request.headers.get("Authorization", "").encode(), f"Bearer {token}".encode())
    if settings.FEDSITE_ACCESS != "open" or settings.FEDSITE_PROXIES or PASSED_ON & set(request.headers):
        return False
    return _is_loopback(request.META.get("REMOTE_ADDR", "")) and _is_loopback(
        urlsplit(f"//{request.get_host()}").hostname
    )


def _is_loopback(name: str | None) -> bool:
    try:
        return name == "localhost" or ip_address(name or "").is_loopback
    except ValueError:
        return False


@login_not_required
def admin_sign_in(request: HttpRequest) -> HttpResponse:
    """The site's own page in place of the admin's, so that guessing is slowed down there too."""
    return redirect_to_login(request.GET.get(REDIRECT_FIELD_NAME, reverse("admin:index")))


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
        if settings.DEBUG and response.status_code == 404 and not request.path_info.startswith(self.ELSEWHERE):
            return render(request, "404.html", status=404)
        return response


class JsonErrors:
    """What fails under /api/ says so as the API does, also where Django answers before the API is asked."""

    sync_capable, async_capable = True, False

    def __init__(self, get_response: Callable[[HttpRequest], HttpResponse]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        response = self.get_response(request)
        is_json = response.get("Content-Type", "").startswith("application/json")
        if response.status_code < 400 or is_json or not request.path_info.startswith("/api/"):
            return response
        allowed = {"Allow": response["Allow"]} if response.has_header("Allow") else {}
        return JsonResponse({"detail": _detail(request, response)}, status=response.status_code, headers=allowed)


def _detail(request: HttpRequest, response: HttpResponse) -> str:
    if response.status_code == 404:
        return f"There is nothing at {request.path}"
    if response.status_code == 405:
        return f"{request.method} is not allowed here, only {response['Allow']}"
    return HTTPStatus(response.status_code).phrase
