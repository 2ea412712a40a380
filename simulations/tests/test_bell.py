"""Ringing takes no more than its time, fails without a word to whoever rings, and never hides that one is to stop."""

from __future__ import annotations

import asyncio
import logging

import pytest

from simulations.running import bell
from simulations.showing import feed


class Layer:
    """A channel layer that answers when it is told to."""

    def __init__(self) -> None:
        self.answer = asyncio.get_running_loop().create_future()

    async def group_send(self, group: str, message: dict) -> None:
        await self.answer

    async def receive(self, channel: str) -> None:
        await self.answer


@pytest.fixture
async def layer(monkeypatch: pytest.MonkeyPatch) -> Layer:
    made = Layer()
    monkeypatch.setattr(bell, "get_channel_layer", lambda: made)
    return made


@pytest.mark.parametrize("name", ["bell", "feed"])
async def test_a_cancellation_that_comes_with_the_answer_is_not_lost(layer: Layer, name: str) -> None:
    """As on SIGTERM in the moment in which a ring was heard: a run that missed it would hold up its worker's end."""
    waits = bell.ring_viewers(1) if name == "bell" else feed._ring_or_timeout(layer, "viewers")
    task = asyncio.create_task(waits)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    layer.answer.set_result(None)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_layer_that_hangs_is_left(
    layer: Layer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(bell, "RING_SECONDS", 0.01)
    with caplog.at_level(logging.WARNING):
        await bell.ring_viewers(1)
    assert "viewers will look by themselves" in caplog.text


async def test_a_layer_that_fails_is_told(layer: Layer, caplog: pytest.LogCaptureFixture) -> None:
    layer.answer.set_exception(ConnectionError("refused"))
    with caplog.at_level(logging.WARNING):
        await bell.ring_viewers(1)
    assert "refused" in caplog.text
