"""Reading Server-Sent Events as a browser does: only whole frames count."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx


@dataclass
class Frame:
    id: str = ""
    event: str = ""
    data: list[str] = field(default_factory=list)


def parse(text: str) -> list[Frame]:
    """Whole frames with data; comments, greetings and a torn end are left out."""
    frames = []
    for block in text.split("\n\n")[:-1]:
        frame = Frame()
        for line in block.split("\n"):
            name, _, value = line.partition(": ")
            if name == "data":
                frame.data.append(value)
            elif name in ("id", "event"):
                setattr(frame, name, value)
        if frame.data:
            frames.append(frame)
    return frames


def chunks(url: str, **headers: str) -> Iterator[str]:
    """The stream as it arrives."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    with httpx.stream("GET", url, headers=named, timeout=60) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        yield from response.iter_text()


def whole(url: str, **headers: str) -> list[Frame]:
    return parse("".join(chunks(url, **headers)))
