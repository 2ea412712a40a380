"""What a person at a terminal sees of a run: lines or a moving bar while it runs, a table at its end."""

import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TextIO

from simulations.models import Simulation
from simulations.running.events import Event, Log, Resolved, Round, Started
from training.figures import figure

BAR_WIDTH = 30
SHOWN_CLIENTS = 20


class Progress:
    """One line that moves where the stream is a terminal; a plain line per event where it is not."""

    def __init__(self, out: TextIO) -> None:
        self.out = out
        self.moving = out.isatty()
        self.num_rounds = 0
        self.first_round: tuple[int, float] | None = None  # number before it, and when it began
        self.waited_for = ""

    async def show(self, happenings: AsyncIterator[Event]) -> AsyncIterator[Event]:
        """Pass the events on, and show them."""
        self._line("Starting the trainer; PyTorch takes a few seconds to load")
        try:
            async for event in happenings:
                self._event(event)
                yield event
        finally:
            aclose = getattr(happenings, "aclose", None)
            if aclose:
                await aclose()

    def waiting(self, simulation: Simulation) -> None:
        """Somebody else runs it."""
        done = f"round {simulation.rounds_done} of {simulation.num_rounds}"
        text = f"Simulation {simulation.pk} is {simulation.status}: {done}"
        if text != self.waited_for:
            self._line(text)
            self.waited_for = text

    def _event(self, event: Event) -> None:
        if isinstance(event, Resolved):
            self.num_rounds = event.config["num_rounds"]
        if isinstance(event, Round):
            self._round(event)
        elif not self.moving or not isinstance(event, Log) or event.level == "warning":
            self._line(event.message)
        if isinstance(event, Started):
            self.first_round = None

    def _round(self, event: Round) -> None:
        now = time.monotonic()
        began = self.first_round or (event.round_number - 1, now - event.duration_seconds)
        self.first_round = began
        pace = (now - began[1]) / (event.round_number - began[0])
        left = f"{pace * (self.num_rounds - event.round_number):,.0f} s left"
        figures = (
            f"loss {figure(event.loss)}, accuracy {event.accuracy:.4f}" if event.loss is not None else "not evaluated"
        )
        line = f"round {event.round_number} of {self.num_rounds}, {figures}, {left}"
        if not self.moving:
            return self._line(line[0].upper() + line[1:])
        done = BAR_WIDTH * event.round_number // self.num_rounds
        end = "\n" if event.round_number == self.num_rounds else ""
        self._write(f"\r\x1b[K[{'#' * done}{'.' * (BAR_WIDTH - done)}] {line}{end}")

    def _line(self, text: str) -> None:
        self._write(("\r\x1b[K" if self.moving else "") + text + "\n")

    def _write(self, text: str) -> None:
        """A run goes on when nobody reads of it any more."""
        with suppress(OSError):
            self.out.write(text)
            self.out.flush()


def table(result: dict[str, Any]) -> str:
    """Clients with contribution and reward, what each of several economies paid, and what became of the whole."""
    economies = result["economy_sums"]
    parts = [clients_table(result["clients"]), economies_table(economies) if len(economies) > 1 else ""]
    return "\n\n".join([*filter(None, parts), _summary(result)])


def economies_table(economies: Sequence[Mapping[str, Any]]) -> str:
    """Money in tokens; the last column is the share of what was paid that went to clients that are not honest."""
    rows = [("Economy", "Paid", "Burned", "Treasury", "Clients paid", "To dishonest")]
    for each in economies:
        paid = each["paid_microtokens"]
        tokens = (f"{each[f'{name}_microtokens'] / 1_000_000:,.3f}" for name in ("paid", "burned", "treasury"))
        share = f"{each['dishonest_microtokens'] / paid:.1%}" if paid else "-"
        rows.append((each["label"], *tokens, f"{each['clients_paid']:,}", share))
    return _columns(rows, words=0)


def clients_table(clients: Sequence[Mapping[str, Any]]) -> str:
    """Of a crowd those who got most and least; what stakes lost where there are any."""
    is_staked = any(client["stake_microtokens"] or client["slashed_microtokens"] for client in clients)
    rows = [("Client", "Behaviour", "Examples", "Contribution", "Tokens", *["Stake lost"] * is_staked)]
    clients = sorted(clients, key=lambda client: -client["reward_microtokens"])
    half = SHOWN_CLIENTS // 2
    shown = clients if len(clients) <= SHOWN_CLIENTS else clients[:half] + clients[-half:]
    rows += [
        (
            str(client["client"]),
            client["behaviour"].replace("_", " ")
            + (f" of {client['holder']}" if client["holder"] != client["client"] else ""),
            f"{client['num_examples']:,}",
            figure(client["contribution"], 5),
            f"{client['reward_microtokens'] / 1_000_000:,.3f}",
            *[f"{client['slashed_microtokens'] / 1_000_000:,.3f}"] * is_staked,
        )
        for client in (shown if len(clients) > SHOWN_CLIENTS else sorted(shown, key=lambda client: client["client"]))
    ]
    lines = _columns(rows, words=1).splitlines()
    if len(clients) > SHOWN_CLIENTS:
        lines.insert(1 + SHOWN_CLIENTS // 2, f"... {len(clients) - SHOWN_CLIENTS:,} more clients ...")
    return "\n".join(lines)


def _columns(rows: Sequence[tuple[str, ...]], words: int) -> str:
    """A line for each row, all to the right but for the column of words."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == words else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    )


def _summary(result: dict[str, Any]) -> str:
    name = f"Simulation {result['id']}" if result["id"] else "The simulation, not recorded,"
    last = next((row for row in reversed(result["rounds"]) if row["loss"] is not None), None)
    figures = f": loss {figure(last['loss'])}, accuracy {last['accuracy']:.4f}" if last else ""
    tokens = result["pool_microtokens"] / 1_000_000
    text = f"{name} {result['status']} after {len(result['rounds'])} rounds and {result['duration_seconds']:.1f} s"
    text += f"{figures}; {tokens:,.3f} tokens in its pools."
    return "\n".join([text, *(result[name] for name in ("warning", "failure") if result[name])])
