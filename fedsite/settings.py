"""Settings: the environment first, then a .env file. A wrong value stops the start and says what was expected."""

import os
import re
import sqlite3
import sys
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import dj_database_url
from csp.constants import NONE, SELF
from dotenv import load_dotenv
from redis.backoff import NoBackoff
from redis.retry import Retry

from training import host

BASE_DIR = Path(__file__).resolve().parent.parent
load_dotenv(os.environ.get("FEDSITE_ENV_FILE", BASE_DIR / ".env"), override=False)


def stop(name: str, expected: str) -> SystemExit:
    return SystemExit(f"{name}={os.environ.get(name, '')!r}: expected {expected}")


def flag(name: str, default: bool) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if value not in ("", "0", "1", "false", "true", "no", "yes", "off", "on"):
        raise stop(name, "0 or 1")
    return value in ("1", "true", "yes", "on") if value else default


def count(name: str, default: int, minimum: int, maximum: int) -> int:
    value = os.environ.get(name, "").strip() or str(default)
    if not (value.isascii() and value.isdigit() and minimum <= int(value) <= maximum):
        raise stop(name, f"a whole number from {minimum} to {maximum}")
    return int(value)


def size(name: str) -> int | None:
    """Bytes, as 8GB or 8000000000; None where nothing is set."""
    value = os.environ.get(name, "").strip()
    if not value:
        return None
    match = re.fullmatch(r"(\d{1,15})(?:\s*([KMGT])B)?", value, re.ASCII | re.IGNORECASE)
    bytes_ = int(match[1]) * 1000 ** " KMGT".index((match[2] or " ").upper()) if match else 0
    if not 1_000_000_000 <= bytes_ <= 10**15:
        raise stop(name, "bytes, at least 1GB, like 8GB or 8000000000")
    return bytes_


def names(name: str, default: str) -> list[str]:
    return [part.strip() for part in os.environ.get(name, default).split(",") if part.strip()]


def origins(name: str, default: str) -> list[str]:
    found = names(name, default)
    for origin in found:
        if not origin.startswith(("http://", "https://")) or origin.endswith("/"):
            raise stop(name, "origins like http://localhost:3000, joined by commas")
    return found


def one_of(name: str, default: str, *choices: str) -> str:
    value = os.environ.get(name, "").strip() or default
    if value not in choices:
        raise stop(name, " or ".join(choices))
    return value


def root_path(name: str) -> str:
    """Empty, or like /fed: what stands before every address of the site."""
    value = os.environ.get(name, "").strip().rstrip("/")
    if value and not re.fullmatch(r"(/[A-Za-z0-9_~-][A-Za-z0-9._~-]*)+", value):
        raise stop(name, "a path like /fed, or nothing")
    return value


def folder(name: str, default: str) -> Path:
    path = Path(os.environ.get(name, "").strip() or BASE_DIR / default).expanduser().resolve()
    if path.exists() and not path.is_dir():
        raise stop(name, "a folder, and this is a file")
    return path


def sqlite_file(url: str) -> str:
    """The file that sqlite:///name or sqlite:////folder/name means, whichever folder a command is started in."""
    if url in ("sqlite://:memory:", "sqlite:///:memory:"):
        return ":memory:"
    if url and (not url.startswith("sqlite:///") or url == "sqlite:///"):
        raise stop("DATABASE_URL", "sqlite:///name in the project's folder, or sqlite:////folder/name")
    if "?" in url:
        raise stop("DATABASE_URL", "%3F in the place of ?, as a file of SQLite takes no options")
    path = BASE_DIR / (unquote(url.removeprefix("sqlite:///")) or "db.sqlite3")
    if "\0" in str(path) or path.is_dir():
        raise stop("DATABASE_URL", "a file, and this is none")
    return str(path)


DEBUG = flag("DEBUG", False)
SECRET_KEY = os.environ.get("SECRET_KEY", "")
if not SECRET_KEY:
    raise stop("SECRET_KEY", "a long random text, in the environment or in .env (`make run` writes one)")
if not DEBUG and (len(SECRET_KEY) < 32 or len(set(SECRET_KEY)) < 8 or SECRET_KEY.startswith("django-insecure-")):
    # Who guesses it signs sessions and password links. It is not repeated here: it may have been in use.
    told = f"SECRET_KEY ({len(SECRET_KEY)} characters, {len(set(SECRET_KEY))} different ones)"
    raise SystemExit(f"{told}: expected a random text of at least 32, such as `openssl rand -base64 48` prints")
ALLOWED_HOSTS = names("ALLOWED_HOSTS", "localhost,127.0.0.1,[::1]")
CORS_ALLOWED_ORIGINS = origins("CORS_ALLOWED_ORIGINS", "http://localhost:3000" if DEBUG else "")
CSRF_TRUSTED_ORIGINS = origins("CSRF_TRUSTED_ORIGINS", "")
CORS_ALLOW_CREDENTIALS = True
CORS_URLS_REGEX = r"^/api/"

FEDSITE_DATA_DIR = folder("FEDSITE_DATA_DIR", "data")
FEDSITE_CHECKPOINT_DIR = folder("FEDSITE_CHECKPOINT_DIR", "checkpoints")
FEDSITE_PLUGINS_DIR = folder("FEDSITE_PLUGINS_DIR", "plugins")
FEDSITE_PLUGINS = names("FEDSITE_PLUGINS", "")  # installed distributions
FEDSITE_ACCESS = one_of("FEDSITE_ACCESS", "open" if DEBUG else "login", "open", "login")
FEDSITE_MAX_CONCURRENT = count("FEDSITE_MAX_CONCURRENT", 1, 1, 64)
FEDSITE_MAX_QUEUED = count("FEDSITE_MAX_QUEUED", 100, 1, 100_000)
FEDSITE_MAX_STREAMS = count("FEDSITE_MAX_STREAMS", 500, 1, 100_000)
FEDSITE_MAX_STREAMS_PER_ADDRESS = count("FEDSITE_MAX_STREAMS_PER_ADDRESS", max(1, FEDSITE_MAX_STREAMS // 4), 1, 100_000)
FEDSITE_MAX_STREAMS_PER_PERSON = count("FEDSITE_MAX_STREAMS_PER_PERSON", max(1, FEDSITE_MAX_STREAMS // 4), 1, 100_000)
FEDSITE_MAX_MEMORY = size("FEDSITE_MAX_MEMORY") or host.memory_bytes() * 3 // 4
FEDSITE_MAX_SECONDS = count("FEDSITE_MAX_SECONDS", 0, 0, 10**9)  # 0: no limit
FEDSITE_MAX_ROWS = count("FEDSITE_MAX_ROWS", 0, 0, 10**12)  # of the database, that a run may write; 0: no limit
FEDSITE_METRICS_TOKEN = os.environ.get("FEDSITE_METRICS_TOKEN", "").strip()
if FEDSITE_METRICS_TOKEN and len(FEDSITE_METRICS_TOKEN) < 16:
    raise stop("FEDSITE_METRICS_TOKEN", "a random text of at least 16 characters, or nothing")
FEDSITE_LOG = one_of("FEDSITE_LOG", "line", "line", "json")
FEDSITE_MAX_PER_USER = count("FEDSITE_MAX_PER_USER", 20, 1, 100_000)
FEDSITE_MAX_PER_ADDRESS = count("FEDSITE_MAX_PER_ADDRESS", 50, 1, 100_000)
FEDSITE_OTHERS_MAY_LOOK = flag("FEDSITE_OTHERS_MAY_LOOK", True)
PLUGIN_SOURCES = "extensions.records.files_of"
PAYMENTS_EXPLAINED_BY = "simulations.showing.payments.explained"
LEDGERS_SEEN_BY = "simulations.owners.ledgers_seen_by"
LEDGERS_MADE_ON = "simulations.ledgers.manifests"
FEDSITE_REQUESTS_PER_MINUTE = count("FEDSITE_REQUESTS_PER_MINUTE", 600, 0, 1_000_000)  # 0: no limit
FEDSITE_HTTPS = flag("FEDSITE_HTTPS", not DEBUG)
FEDSITE_HSTS_SECONDS = count("FEDSITE_HSTS_SECONDS", 30 * 24 * 3600, 0, 10 * 365 * 24 * 3600)
FEDSITE_PROXIES = count("FEDSITE_PROXIES", 0, 0, 9)
FEDSITE_LEASE_SECONDS = count("FEDSITE_LEASE_SECONDS", 15, 2, 3600)
FEDSITE_ROOT_PATH = root_path("FEDSITE_ROOT_PATH")
FORCE_SCRIPT_NAME = FEDSITE_ROOT_PATH or None
SESSION_COOKIE_PATH = CSRF_COOKIE_PATH = FEDSITE_ROOT_PATH or "/"

INSTALLED_APPS = [
    "daphne",
    "simulations",  # before channels: its runworker also polls
    "incentives",
    "people",
    "extensions",
    "fedsite",
    "fedsite.theme",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.humanize",
    "channels",
    "corsheaders",
    "csp",
    "django_htmx",
    "ninja",
    "tailwind",
]
MIDDLEWARE = [
    "fedsite.access.LoadBalancers",
    "django.middleware.security.SecurityMiddleware",
    "corsheaders.middleware.CorsMiddleware",
    "csp.middleware.CSPMiddleware",
    "fedsite.wellformed.WellFormed",  # before all that reads addresses and cookies, static files too
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "fedsite.access.AccessMiddleware",
    "fedsite.views.PlainNotFound",
    "fedsite.views.JsonErrors",
    "fedsite.trouble.DatabaseTrouble",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "fedsite.urls"
ASGI_APPLICATION = "fedsite.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [BASE_DIR / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]

DATABASE_URL = os.environ.get("DATABASE_URL", "").strip()
if "#" in DATABASE_URL:
    raise stop("DATABASE_URL", "%23 in the place of #, which would end the address")
if not DATABASE_URL or DATABASE_URL.startswith("sqlite:"):
    DATABASES: dict[str, dict[str, Any]] = {
        "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sqlite_file(DATABASE_URL)}
    }
else:
    try:
        # PostgreSQL: a connection lives as long as its query's thread needs it, so that viewers hold none.
        DATABASES = {"default": dict(dj_database_url.parse(DATABASE_URL, conn_max_age=0))}
    except (ValueError, KeyError) as error:
        raise stop("DATABASE_URL", f"something like postgresql://user:password@host/name ({error})") from None
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    if sqlite3.sqlite_version_info < (3, 35):
        raise SystemExit(f"SQLite is {sqlite3.sqlite_version} here, and 3.35 or newer is needed; or set DATABASE_URL")
    # Closing SQLite's last connection checkpoints the log, so connections stay. IMMEDIATE: two writers wait for each
    # other instead of failing. recursive_triggers: INSERT OR REPLACE may not go round the ledger's delete triggers.
    DATABASES["default"] |= {
        "CONN_MAX_AGE": None,
        "OPTIONS": {
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA recursive_triggers=ON; "
            "PRAGMA foreign_keys=ON;",
        },
    }
if DATABASES["default"]["ENGINE"].endswith("postgresql"):
    # A process that is stopped, or cut off, within a transaction would keep its locks for as long.
    DATABASES["default"].setdefault("OPTIONS", {}).setdefault("options", "-c idle_in_transaction_session_timeout=10000")
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL = os.environ.get("REDIS_URL", "").strip()
if REDIS_URL and not REDIS_URL.startswith(("redis://", "rediss://", "unix://")):
    raise stop("REDIS_URL", "something like redis://localhost:6379/0")
if REDIS_URL:
    # redis-py's own socket time-out equals the layer's blocking read and would end an idle worker.
    hosts = [{"address": REDIS_URL, "socket_timeout": None}]
    CHANNEL_LAYERS = {
        "default": {
            "BACKEND": "channels_redis.core.RedisChannelLayer",
            "CONFIG": {"hosts": hosts, "capacity": 1500},
        }
    }
else:
    CHANNEL_LAYERS = {"default": {"BACKEND": "channels.layers.InMemoryChannelLayer", "CONFIG": {"capacity": 1000}}}
EMBEDDED_WORKER = not REDIS_URL

# What a page remembers stays in its process, so that no page needs Redis. Counters that all processes share lie apart,
# and room for many: Django's 300 entries are washed out by as many visitors.
LOCAL = {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
ROOMY = LOCAL | {"OPTIONS": {"MAX_ENTRIES": 100_000}}
CACHES = {"default": LOCAL, "alone": ROOMY | {"LOCATION": "alone"}, "shared": ROOMY | {"LOCATION": "shared"}}
if REDIS_URL:
    CACHES["shared"] = {
        "BACKEND": "django.core.cache.backends.redis.RedisCache",
        "LOCATION": REDIS_URL,
        "KEY_PREFIX": "fedsite",
        # Nobody's request waits long for a Redis that is gone; people.limits then counts in its process.
        "OPTIONS": {"socket_timeout": 1, "socket_connect_timeout": 1, "retry": Retry(NoBackoff(), 1)},
    }

AUTH_PASSWORD_VALIDATORS = [
    {"NAME": f"django.contrib.auth.password_validation.{name}"}
    for name in (
        "UserAttributeSimilarityValidator",
        "MinimumLengthValidator",
        "CommonPasswordValidator",
        "NumericPasswordValidator",
    )
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = LOGOUT_REDIRECT_URL = "simulations:home"
PASSWORD_RESET_TIMEOUT = 3 * 24 * 3600

EMAIL_URL = os.environ.get("EMAIL_URL", "").strip()
EMAIL_PORTS = {"smtp": 25, "smtp+tls": 587, "smtps": 465}
EMAIL_BACKEND = f"django.core.mail.backends.{'smtp' if EMAIL_URL else 'console'}.EmailBackend"
try:
    server = urlsplit(EMAIL_URL)
    if EMAIL_URL and not (server.scheme in EMAIL_PORTS and server.hostname):
        raise ValueError("scheme or host is missing")
    EMAIL_HOST, EMAIL_PORT = server.hostname or "localhost", server.port or EMAIL_PORTS.get(server.scheme, 25)
except ValueError as error:
    raise stop("EMAIL_URL", f"something like smtp+tls://user:password@mail.example.org ({error})") from None
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = unquote(server.username or ""), unquote(server.password or "")
EMAIL_USE_TLS, EMAIL_USE_SSL = server.scheme == "smtp+tls", server.scheme == "smtps"
EMAIL_TIMEOUT = 20
DEFAULT_FROM_EMAIL = SERVER_EMAIL = os.environ.get("EMAIL_FROM", "").strip() or "fedsite@localhost"
if "@" not in DEFAULT_FROM_EMAIL or "\n" in DEFAULT_FROM_EMAIL:
    raise stop("EMAIL_FROM", "an address like fedsite@example.org")

MESSAGE_STORAGE = "django.contrib.messages.storage.session.SessionStorage"  # a cookie of its own would know no root

LANGUAGE_CODE = "en"
USE_I18N = False
USE_THOUSAND_SEPARATOR = False
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = f"{FEDSITE_ROOT_PATH}/static/"
STATICFILES_DIRS = [BASE_DIR / "static"]
STATIC_ROOT = BASE_DIR / "staticfiles"
COLLECTED = (STATIC_ROOT / "staticfiles.json").exists() and not DEBUG
WHITENOISE_USE_FINDERS = not COLLECTED  # without collectstatic the files are served from where they lie
WHITENOISE_AUTOREFRESH = DEBUG
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if COLLECTED or "collectstatic" in sys.argv
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
TAILWIND_APP_NAME = "fedsite.theme"
TAILWIND_CSS_PATH = "css/app.css"

CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF],
        "style-src": [SELF],
        "connect-src": [SELF],
        "font-src": [SELF],
        "img-src": [SELF, "data:"],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "object-src": [NONE],
    }
}
X_FRAME_OPTIONS = "DENY"
SECURE_REDIRECT_EXEMPT = [f"^{FEDSITE_ROOT_PATH[1:]}/?metrics$"]  # asked from within, over plain HTTP
SECURE_REFERRER_POLICY = "same-origin"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE_SSL_REDIRECT = FEDSITE_HTTPS
SECURE_HSTS_SECONDS = FEDSITE_HSTS_SECONDS if FEDSITE_HTTPS else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = FEDSITE_HTTPS
# Not `preload`: with it anybody may have the whole domain put on the browsers' lists; its owner is to decide that.
SILENCED_SYSTEM_CHECKS = ["security.W021"]
if FEDSITE_PROXIES:  # else anybody may claim to have come by HTTPS
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
CSRF_FAILURE_VIEW = "fedsite.views.csrf_failure"
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "simulations.logs.Lines"},
        "json": {"()": "simulations.logs.JsonLines"},
    },
    "filters": {"visitors who left": {"()": "simulations.logs.WithoutThoseWhoLeft"}},
    "handlers": {
        "console": {"class": "logging.StreamHandler", "formatter": FEDSITE_LOG, "filters": ["visitors who left"]}
    },
    "root": {"handlers": ["console"], "level": "WARNING"},
    "loggers": {
        "django": {"level": "INFO"},  # without the handler of its own, which prints plain lines in DEBUG
        "simulations": {"level": "INFO"},
        "incentives": {"level": "INFO"},
        "people": {"level": "INFO"},
        "fedsite": {"level": "INFO"},
    },
}
