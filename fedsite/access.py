"""Who may come in (FEDSITE_ACCESS), who speaks, how often, and which writes over JSON no other site has forged."""

from collections.abc import Callable

from django.conf import settings
from django.contrib.auth.views import redirect_to_login
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.shortcuts import render, resolve_url
from django.urls import resolve
from ninja.errors import HttpError

from people import limits, tokens
from people.models import Scope, Token
from simulations import owners
from simulations.origins import is_foreign

HEALTH_PATHS = ("/healthz", "/readyz")
OPEN_PATHS = ("/accounts/", "/admin/", "/static/", "/metrics")  # the admin asks for itself, so do the metrics
API, LEDGER = "/api/", ("/ledger/", "/api/incentives/")
LEDGER_STATE = "/ledger/state/"  # counts only, for the head of every page
SAFE = ("GET", "HEAD", "OPTIONS")
STARTS_BY_GET = "/api/simulations/stream"  # for a browser's EventSource, which cannot POST


class LoadBalancers:
    """They ask by address, over plain HTTP, without an account: answered before any of these is looked at."""

    sync_capable, async_capable = True, False

    def __init__(self, get_response: Callable) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        if request.path in HEALTH_PATHS:
            return resolve(request.path).func(request)
        return self.get_response(request)


class AccessMiddleware:
    """With FEDSITE_ACCESS=login nobody comes in without having signed in. A token says whom its program acts for.

    For all that count by it, `request.address` says where a request comes from (people.limits)."""

    sync_capable, async_capable = True, False

    def __init__(self, get_response: Callable) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        request.address = limits.address(request)
        return self.get_response(request)

    def process_view(self, request: HttpRequest, view, args, kwargs) -> HttpResponse | None:
        is_api = request.path.startswith(API)
        refused = (_program(request) or _too_often(request)) if is_api else None
        if refused or settings.FEDSITE_ACCESS == "open" or request.path.startswith(OPEN_PATHS):
            return refused
        if request.method == "OPTIONS":
            return None
        if not request.user.is_authenticated:
            return _stranger(request)
        if request.path.startswith(LEDGER) and not _may_see_ledger(request, kwargs):
            return _others_ledger(request)
        return None


def _program(request: HttpRequest) -> HttpResponse | None:
    """Whose program it is, by its token; a refusal where the token is wrong or does not allow what is asked."""
    scheme, _, secret = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer":
        return None
    token = tokens.known(secret.strip())
    if token is None:
        return limited(request, "address", request.address) or _unknown(
            "The token is unknown, expired or revoked", 'Bearer error="invalid_token"'
        )
    request.token, request.user = token, token.owner
    if _writes(request) and token.scope != Scope.WRITE:
        return JsonResponse({"detail": "This token may read only"}, status=403)
    return None


def _writes(request: HttpRequest) -> bool:
    starts = request.path == STARTS_BY_GET and "Last-Event-ID" not in request.headers
    return starts or request.method not in SAFE


def _too_often(request: HttpRequest) -> HttpResponse | None:
    token: Token | None = getattr(request, "token", None)
    if token is not None:
        return limited(request, "token", str(token.pk))
    if request.user.is_authenticated:
        return limited(request, "user", str(request.user.pk))
    return limited(request, "address", request.address)


def limited(request: HttpRequest, kind: str, who: str) -> HttpResponse | None:
    """429 with Retry-After after FEDSITE_REQUESTS_PER_MINUTE requests in a minute."""
    most = settings.FEDSITE_REQUESTS_PER_MINUTE
    seconds = limits.seconds_over(f"{kind}:{who}", most)
    if not seconds:
        return None
    detail = f"More than {most} requests in a minute; go on in {seconds} s"
    return JsonResponse({"detail": detail}, status=429, headers={"Retry-After": str(seconds)})


def _unknown(detail: str, challenge: str) -> HttpResponse:
    return JsonResponse({"detail": detail}, status=401, headers={"WWW-Authenticate": challenge})


def _stranger(request: HttpRequest) -> HttpResponse:
    if request.path.startswith(API) and request.path != "/api/docs":
        return _unknown("Sign in first, or send a token", 'Bearer realm="fedsite"')
    if request.headers.get("HX-Request"):  # a sign-in page has no place inside a fragment
        return HttpResponse(status=401, headers={"HX-Redirect": resolve_url(settings.LOGIN_URL)})
    return redirect_to_login(request.get_full_path())


def _may_see_ledger(request: HttpRequest, kwargs: dict) -> bool:
    """Where others may not look, only staff see ledgers that are not those of their own simulations."""
    if settings.FEDSITE_OTHERS_MAY_LOOK or request.user.is_staff or request.path == LEDGER_STATE:
        return True
    if request.method not in SAFE:
        return False
    name = kwargs.get("name") or request.GET.get("ledger", "").strip()
    name = name or f"simulation-{request.GET.get('simulation_id', '')}"
    return owners.seen_by(request.user).filter(ledger__name=name).exists()


def _others_ledger(request: HttpRequest) -> HttpResponse:
    detail = "Only staff may see the whole ledger; add ?ledger=simulation-N with a simulation of yours"
    if request.path.startswith(API):
        return JsonResponse({"detail": detail}, status=403)
    return render(request, "403.html", {"text": f"{detail}."}, status=403)


def may_write(request: HttpRequest) -> bool:
    """The API's rule for writes; an HttpError with status and reason where it is broken."""
    if request.method in SAFE or hasattr(request, "token"):  # a browser sends no token by itself
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
