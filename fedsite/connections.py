"""Connections that keep the server waiting: daphne's own limits end at an idle minute, which each byte begins anew.

A request's head and body have a time each, and a body has a size. Of all connections on which no request is being
answered a process keeps a bounded number: the oldest of whichever address has most makes room for a new one. Whoever
opens thousands therefore crowds himself out. What is sent goes at the pace at which it is read, and who does not read
at all is let go.
"""

from __future__ import annotations

import asyncio
import json
import logging
import resource
from collections import defaultdict
from ipaddress import IPv6Address, ip_address
from typing import Any

import daphne.server
from daphne.http_protocol import HTTPFactory
from django.conf import settings
from twisted.web.http import HTTPChannel

log = logging.getLogger(__name__)
HEAD_SECONDS = 10.0  # from its first byte, or from the connection
BODY_SECONDS = 60.0
LINGER_SECONDS = 5.0  # what a client still sends is thrown away for so long, or it would not see why it is refused
SOON_SECONDS = 0.05  # so that of many who come at once, those who have sent a whole request have it read
MOST_BODY_BYTES = settings.DATA_UPLOAD_MAX_MEMORY_SIZE  # Django refuses what is above it too, but reads it first
UNREAD_SECONDS = 60.0  # for which an answer waits to be read on
NOT_FOR_US = (b"Upgrade", b"Daphne-Root-Path")  # a WebSocket is answered as HTTP; where our root is, nobody tells us
ENOUGH_DESCRIPTORS = 65_536
OTHERS = 200  # descriptors for requests that are being answered, the database, trainers' pipes, logs
REASONS = {
    408: ("Request Timeout", "The request did not come within {head:.0f} s, or its body not within {body:.0f} s"),
    413: ("Content Too Large", "A body may have at most {bytes:,} bytes"),
}


class Channel(HTTPChannel):
    """A connection: it waits for a request, has it answered, waits again."""

    deadline: Any = None
    body_bytes = 0

    def connectionMade(self) -> None:
        self.flowing = asyncio.Event()
        self.flowing.set()
        super().connectionMade()
        self.address = group(self.transport.getPeer())
        self.factory.begin_to_wait(self)
        self.within(HEAD_SECONDS)

    def dataReceived(self, data: bytes) -> None:
        if self.deadline is None and not self._handlingRequest:
            self.within(HEAD_SECONDS)
        super().dataReceived(data)

    def allHeadersReceived(self) -> None:
        self.within(BODY_SECONDS)
        self.body_bytes = 0
        too_long = (self.length or 0) > MOST_BODY_BYTES
        for name in (*NOT_FOR_US, *([b"Expect"] if too_long else ())):  # nobody is told to go on
            self.requests[-1].requestHeaders.removeHeader(name)
        super().allHeadersReceived()
        if too_long:
            self.refuse(413)

    def rawDataReceived(self, data: bytes) -> None:
        if not self._handlingRequest:
            self.body_bytes += len(data)
            if self.body_bytes > MOST_BODY_BYTES:  # its length was not told
                self.refuse(413)
                return
        super().rawDataReceived(data)

    def allContentReceived(self) -> None:
        self.within(None)
        self.factory.end_to_wait(self)
        super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        if self.persistent:
            self.factory.begin_to_wait(self)
        super().requestDone(request)

    def connectionLost(self, reason: Any) -> None:
        self.within(None)
        self.factory.end_to_wait(self)
        self.flowing.set()
        super().connectionLost(reason)

    def within(self, seconds: float | None) -> None:
        """What is waited for has so many seconds from now; None: nothing is."""
        if self.deadline is not None and self.deadline.active():
            self.deadline.cancel()
        self.deadline = None if seconds is None else self.callLater(seconds, self.refuse, 408)

    def refuse(self, status: int) -> None:
        reason, text = REASONS[status]
        detail = text.format(head=HEAD_SECONDS, body=BODY_SECONDS, bytes=MOST_BODY_BYTES)
        body = json.dumps({"detail": detail}).encode()
        head = f"HTTP/1.1 {status} {reason}\r\nContent-Type: application/json\r\nConnection: close\r\n"
        self.transport.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        self.setTimeout(None)
        self.dataReceived = lambda data: None
        self.deadline = self.callLater(LINGER_SECONDS, self.transport.abortConnection)

    def pauseProducing(self) -> None:
        self.flowing.clear()
        super().pauseProducing()

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self.flowing.set()

    async def read_on(self) -> None:
        """Until the client has read so much of what was written that there is room for more."""
        try:
            async with asyncio.timeout(UNREAD_SECONDS):
                await self.flowing.wait()
        except TimeoutError:
            self.transport.abortConnection()  # the viewer of a stream comes back, after the last event that he has read


def at_the_readers_pace(send: Any) -> Any:
    """The same `send`, waiting after each piece of an answer. daphne's own never waits: what a client does not read
    would lie in this process's memory. It is bound to the request that it answers; other servers' is left alone.
    """
    request = getattr(send, "args", (None,))[0]
    channel = getattr(request, "channel", None)
    if not isinstance(channel, Channel):
        return send

    async def paced(message: dict[str, Any]) -> None:
        await send(message)
        if message.get("more_body"):
            await channel.read_on()

    return paced


def group(peer: Any) -> str:
    """What counts as one address: whoever has one of IPv6 has 2^64."""
    try:
        address = ip_address(peer.host.partition("%")[0])
    except (AttributeError, ValueError):
        return ""  # a socket in the file system: the proxy's
    if isinstance(address, IPv6Address):
        return str(address.ipv4_mapped or int(address) >> 64)
    return str(address)


class Factory(HTTPFactory):
    """daphne's, with our channel. HTTP/2, which would go around it, is left to the proxy."""

    protocol = Channel
    most = ENOUGH_DESCRIPTORS // 4

    def __init__(self, server: Any) -> None:
        super().__init__(server)
        self.waiting: dict[str, dict[Channel, None]] = defaultdict(dict)  # by address, the oldest first
        self.making_room: Any = None

    def begin_to_wait(self, channel: Channel) -> None:
        self.waiting[channel.address][channel] = None
        if self.too_many() and self.making_room is None:
            self.making_room = self.reactor.callLater(SOON_SECONDS, self.make_room)

    def too_many(self) -> bool:
        return sum(map(len, self.waiting.values())) > self.most

    def make_room(self) -> None:
        self.making_room = None
        while self.too_many():
            oldest = next(iter(max(self.waiting.values(), key=len)))
            self.end_to_wait(oldest)
            oldest.timeoutConnection()

    def end_to_wait(self, channel: Channel) -> None:
        of_address = self.waiting.get(channel.address, {})
        of_address.pop(channel, None)
        if not of_address:
            self.waiting.pop(channel.address, None)

    def acceptableProtocols(self) -> list[bytes]:
        return [b"http/1.1"]


def guard() -> None:
    """To be called before daphne listens: our factory in the place of its own, and descriptors for all of it."""
    limit = raised_limit()
    Factory.most = max(1, limit // 4)
    admitted = max(1, limit - Factory.most - OTHERS)
    if admitted < settings.FEDSITE_MAX_STREAMS:
        log.warning(
            "This process may open %s files: it admits %s streams, and not FEDSITE_MAX_STREAMS=%s. Raise the hard "
            "limit (ulimit -Hn, LimitNOFILE=)", limit, admitted, settings.FEDSITE_MAX_STREAMS,
        )  # fmt: skip
        settings.FEDSITE_MAX_STREAMS = admitted
    daphne.server.HTTPFactory = Factory


def raised_limit() -> int:
    """How many descriptors this process may have, after as much was asked for as is of use and allowed."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = ENOUGH_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, ENOUGH_DESCRIPTORS)
    for more in (wanted, 10_240):  # macOS promises infinity and gives so many
        if soft == resource.RLIM_INFINITY or soft >= more:
            break
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (more, hard))
        except (ValueError, OSError):
            continue
        soft = more
    return ENOUGH_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
