"""What every test finds: an environment of its own, real servers, a real browser."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from fedsite.tests import machine, servers

if TYPE_CHECKING:
    from fedsite.tests.browsers import Browser

hypothesis.settings.register_profile("untimed", deadline=None)  # how fast a busy machine is proves nothing
hypothesis.settings.load_profile("untimed")
LEFT_OUT = pytest.StashKey[list[str]]()

# Before any settings are read: nothing here may depend on, or touch, what the developer's own site uses.
# Programs that tests start inherit it. pyproject.toml names no DJANGO_SETTINGS_MODULE: pytest-django would
# read the settings too soon.
SCRATCH = Path(tempfile.mkdtemp(prefix="fedsite-tests-"))
NOWHERE = "http://127.0.0.1:9"  # a closed port: a test that wants to download finds the network gone
OWN = {
    "DJANGO_SETTINGS_MODULE": "fedsite.settings",
    "FEDSITE_ENV_FILE": os.devnull,
    "SECRET_KEY": "only-for-tests-only-for-tests-only-for-tests-only-for-tests",
    "DEBUG": "1",
    "FEDSITE_REQUESTS_PER_MINUTE": "0",  # tests of the limit set one
    "FEDSITE_CHECKPOINT_DIR": str(SCRATCH / "checkpoints"),
    "FEDSITE_PLUGINS_DIR": str(SCRATCH / "plugins"),
    "FEDSITE_DATA_DIR": str(machine.data_dir().resolve()),
    **dict.fromkeys(("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), NOWHERE),
    **dict.fromkeys(("no_proxy", "NO_PROXY"), "localhost,127.0.0.1,::1"),
}
DEFAULTS = (
    "ALLOWED_HOSTS",
    "CORS_ALLOWED_ORIGINS",
    "REDIS_URL",
    "FEDSITE_ACCESS",
    "FEDSITE_PLUGINS",
    "FEDSITE_MAX_CONCURRENT",
    "FEDSITE_MAX_QUEUED",
    "FEDSITE_MAX_STREAMS",
    "FEDSITE_MAX_STREAMS_PER_ADDRESS",
    "FEDSITE_MAX_STREAMS_PER_PERSON",
    "FEDSITE_METRICS_TOKEN",
    "FEDSITE_MAX_MEMORY",
    "FEDSITE_MAX_SECONDS",
    "FEDSITE_MAX_ROWS",
    "FEDSITE_LOG",
    "FEDSITE_MAX_PER_USER",
    "FEDSITE_MAX_PER_ADDRESS",
    "FEDSITE_OTHERS_MAY_LOOK",
    "FEDSITE_ROOT_PATH",
    "FEDSITE_HTTPS",
    "FEDSITE_PROXIES",
    "FEDSITE_HSTS_SECONDS",
    "CSRF_TRUSTED_ORIGINS",
    "EMAIL_URL",
    "EMAIL_FROM",
    "FEDSITE_LEASE_SECONDS",
    "FAILPOINT",
)

os.environ.update(OWN)
os.environ.setdefault("DATABASE_URL", f"sqlite:///{SCRATCH / 'unused.sqlite3'}")  # PostgreSQL under with_postgres
for name in DEFAULTS:
    os.environ.pop(name, None)
# A shell lets what it starts in the background ignore Ctrl-C, and all that it starts would.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # nohup's word, likewise

from django.conf import settings  # noqa: E402

settings.INSTALLED_APPS  # noqa: B018  # loads them, so that pytest-django sets Django up


def pytest_configure(config: pytest.Config) -> None:
    problems = machine.problems()
    if problems:
        raise pytest.UsageError("; ".join(problems))


def pytest_unconfigure(config: pytest.Config) -> None:
    shutil.rmtree(SCRATCH, ignore_errors=True)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that asks for `browser` is a browser test. Tests of what is not here are left out, and told of."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker("browser")
    told = config.stash[LEFT_OUT] = []
    for fixture, (lacks, sentence) in machine.FIXTURES.items():
        left_out = [item for item in items if lacks() and fixture in getattr(item, "fixturenames", ())]
        if left_out:
            items[:] = [item for item in items if item not in left_out]
            config.hook.pytest_deselected(items=left_out)
            told.append(sentence.format(len(left_out)))


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: Any) -> None:
    """With -n only the processes that run the tests know what was left out; each knows all of it."""
    node.config.stash[LEFT_OUT] = getattr(node, "workeroutput", {}).get("left_out", [])


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["left_out"] = session.config.stash.get(LEFT_OUT, [])


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for sentence in config.stash.get(LEFT_OUT, []):
        terminalreporter.write_line(sentence)


@pytest.fixture(scope="session")
def dataset() -> str:
    """The best data set that is on disk: `mnist`, else `digits`."""
    return "mnist" if machine.has_mnist() else "digits"


@pytest.fixture(scope="session")
def migrated_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with every migration and no row; copy it, do not write to it."""
    return servers.migrate(tmp_path_factory.mktemp("migrated"))


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory, migrated_database: Path) -> Iterator[servers.Server]:
    """One running site for tests that only use it; whoever kills, fills or counts takes `start_server`."""
    running = servers.start_site(tmp_path_factory.mktemp("site"), migrated_database)
    yield running
    running.stop()


@pytest.fixture
def start_server(tmp_path: Path, migrated_database: Path) -> Iterator[Callable[..., servers.Server]]:
    """`start_server(folder=None, *, port=None, options=(), descriptors=None, **settings)`: a site of the test's own,
    stopped after it.

    After `first.kill()`, `start_server(first.folder, port=first.port)` goes on with the same files.
    """
    started: list[servers.Server] = []

    def start(folder: Path | None = None, **options: Any) -> servers.Server:
        folder = folder or tmp_path / f"site-{len(started) + 1}"
        started.append(servers.start_site(folder, migrated_database, **options))
        return started[-1]

    yield start
    stop_all(started)


@pytest.fixture
def start_worker(tmp_path: Path, migrated_database: Path) -> Iterator[Callable[..., servers.Server]]:
    """`start_worker(folder=None, **settings)`: a worker on a site's files, or on files of its own; stopped after it."""
    started: list[servers.Server] = []

    def start(folder: Path | None = None, **settings: str) -> servers.Server:
        if folder is None:
            folder = tmp_path / "workers"
            folder.mkdir(exist_ok=True)
            if not (folder / "db.sqlite3").exists():
                shutil.copyfile(migrated_database, folder / "db.sqlite3")
        started.append(servers.start_worker(folder, **settings))
        return started[-1]

    yield start
    stop_all(started)


def stop_all(started: list[servers.Server]) -> None:
    errors = []
    for running in started:
        try:
            running.stop()
        except servers.ServerError as error:
            errors.append(error)
    if errors:
        raise errors[0]


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Redis of its own."""
    with servers.redis(tmp_path_factory.mktemp("redis")) as url:
        yield url


@pytest.fixture
def nginx(tmp_path: Path) -> Iterator[Callable[..., servers.Proxy]]:
    """`nginx(site, **changes)`: a real nginx in front of a site, by deploy/nginx.conf."""
    with contextlib.ExitStack() as running:

        def start(site: servers.Server, **changes: str) -> servers.Proxy:
            folder = Path(tempfile.mkdtemp(prefix="nginx-", dir=tmp_path))
            return running.enter_context(servers.nginx(folder, site.port, **changes))

        yield start


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Browser]:
    """See fedsite.tests.browsers."""
    from fedsite.tests import browsers

    driver = browsers.chromium(tmp_path / "profile")
    yield driver
    driver.quit()
