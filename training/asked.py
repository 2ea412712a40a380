"""Which game of a round is asked, and who plays in it: from names and reports alone. Standard library only.

training.games answers while a round is there; whoever computes again from what was kept asks the same.
"""

from __future__ import annotations

from collections.abc import Iterable

from kinds import Choice


def same(strategy: Choice, game: str, utility: str, utility_weights: str) -> tuple[str, str, str]:
    """Equal for games that are one: a server that averages plays plain federated averaging's, and to robust strategies,
    which are over what arrives, a client that sent nothing was not there."""
    if game == "server" and strategy.has("averaged"):
        game = "fedavg"
    if game == "server" and strategy.has("robust") and "/" not in strategy.kind:
        utility_weights = "fixed"
    return game, utility, utility_weights


def plays(
    strategy: Choice,
    game: str,
    utility_weights: str,
    sent: Iterable[bool],
    norms: Iterable[float],
    *,
    scheme: int,
) -> list[bool]:
    """Of a cohort, given whose update arrived and how long it is: who sent something plays; in a mean under fixed
    weights whose update is not zero, which changes nothing. Scheme 1: the absent play too under renormalised weights.
    """
    averages = game == "fedavg" or strategy.has("mean")
    if averages and utility_weights == "fixed":
        return [bool(here) and norm > 0 for here, norm in zip(sent, norms, strict=True)]
    return [bool(here) or scheme == 1 for here in sent]
