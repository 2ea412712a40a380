"""Under which path the site lies is its operator's word (FEDSITE_ROOT_PATH), never its visitor's."""

from typing import Any

from django.conf import settings


class OwnRoot:
    """An ASGI application that hears of no other root than ours.

    Servers take one from a header (daphne from `Daphne-Root-Path`), so any visitor could name it; Django would then
    route by another address than the one that was asked for. Here the address always begins with our root, whether
    the proxy in front passed it on or took it away, and load balancers need not know it.
    """

    def __init__(self, application: Any) -> None:
        self.application = application

    async def __call__(self, scope: dict, receive: Any, send: Any) -> None:
        root, path = settings.FEDSITE_ROOT_PATH, scope["path"]
        if root and path == root:
            path += "/"
        elif root and not path.startswith(f"{root}/"):
            path = root + path
        await self.application(scope | {"root_path": root, "path": path}, receive, send)
