"""Who may come in (FEDSITE_ACCESS), and whose writes over JSON are not forged by another site."""

from collections.abc import Callable

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.shortcuts import resolve_url
from ninja.errors import HttpError

from simulations.origins import is_foreign

# The admin has its own sign-in, the metrics their own rule.
OPEN_PATHS = ("/healthz", "/readyz", "/metrics", "/accounts/login/", "/admin/", "/static/")


class AccessMiddleware:
    """With FEDSITE_ACCESS=login nobody reads or writes without having signed in."""

    sync_capable, async_capable = True, False

    def __init__(self, get_response: Callable) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view, args, kwargs) -> HttpResponse | None:
        if settings.FEDSITE_ACCESS == "open" or request.path.startswith(OPEN_PATHS):
            return None
        if request.method == "OPTIONS" or request.user.is_authenticated:
            return None
        if request.path.startswith("/api/"):
            return JsonResponse({"detail": "Sign in first"}, status=401)
        if request.headers.get("HX-Request"):  # a sign-in page has no place inside a fragment
            return HttpResponse(status=401, headers={"HX-Redirect": resolve_url(settings.LOGIN_URL)})
        return redirect_to_login(request.get_full_path())


def may_write(request: HttpRequest) -> bool:
    """The API's rule for writes; an HttpError with status and reason where it is broken."""
    if request.method in ("GET", "HEAD", "OPTIONS"):
        return True
    if is_foreign(request):
        raise HttpError(403, "Another site may not write here; see CORS_ALLOWED_ORIGINS")
    if settings.FEDSITE_ACCESS == "open" and request.content_type == "application/json":
        return True
    if settings.FEDSITE_ACCESS == "open" and not request.META.get("HTTP_X_CSRFTOKEN"):
        raise HttpError(415, "Content-Type must be application/json")
    if CsrfViewMiddleware(lambda request: HttpResponse()).process_view(request, lambda request: None, (), {}):
        raise HttpError(403, "The CSRF token is missing or wrong")
    return True
