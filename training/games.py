"""A round's games: what coalitions of its clients are worth to the server in use, or to plain federated averaging.

The model of a coalition is what the strategy would have made of its updates alone, from the weights and the state
before the round. Where the step is a weighted sum, the strategy tells the weights and all coalitions are evaluated
together; else it joins each coalition's updates itself. The utility is minus the mean cross-entropy on the validation
set, or the accuracy. What became of the cohort's others is said by `utility_weights`: "fixed", they sent nothing;
"renormalised", they were not there. To robust strategies, which are over what arrives, both are the same.

A coalition's utility has the same bits whatever is evaluated beside it. So a round's games keep what they have
evaluated: whoever asks again, for whatever economy, costs nothing and changes nothing.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import kinds
from kinds import Choice
from training import asked, products, strategies, threads
from training.backends import sequential
from training.clients import Task, Update
from training.config import TrainingConfig
from training.datasets import Data
from training.events import ClientReport
from training.game import CoalitionGame, Roster
from training.mixtures import BLOCK, Mixtures, sums_of
from training.products import Products
from training.scores import GATHER_ABOVE, SCORES, slices

GAMES = ("server", "fedavg")
UTILITY_WEIGHTS = ("fixed", "renormalised")


@dataclass(frozen=True, eq=False)
class RoundGames:
    """All games of one round. `of` gives the same game for the same question, so what was evaluated is shared."""

    config: TrainingConfig
    network: nn.Module  # gives the shape; neither read nor changed
    weights: Tensor  # [P], before the round
    state: Mapping[str, Tensor]  # of the strategy, before the round
    after: Tensor  # [P], the weights that the server made
    reports: Sequence[ClientReport]  # of the cohort
    deltas: Tensor | None  # [n, P], a row for each of the cohort, zeros where nothing was sent; None: not kept
    x: Tensor  # the validation set
    y: Tensor
    held: Sequence[int]  # examples that each of the cohort holds
    round_number: int = 1
    kept: Mapping[str, Tensor] = field(default_factory=dict)  # before the round, see training.checkpoints.State
    _made: dict[tuple[str, str, str], Game] = field(default_factory=dict, init=False)

    @property
    def cohort(self) -> tuple[int, ...]:
        return tuple(report.client for report in self.reports)

    @property
    def num_examples(self) -> tuple[int, ...]:
        """That everybody of the cohort reported."""
        return tuple(report.num_examples for report in self.reports)

    def of(self, game: str, utility: str, utility_weights: str) -> Game:
        """`game`: server or fedavg; `utility`: loss or accuracy; `utility_weights`: fixed or renormalised.

        A Roster where the updates were not kept. ValueError for another name, and for the server's game in a run of
        scheme 1 or 2, which has none.
        """
        for name, value, names in (
            ("game", game, GAMES if self.config.scheme >= 3 else GAMES[1:]),
            ("utility", utility, tuple(SCORES)),
            ("utility_weights", utility_weights, UTILITY_WEIGHTS),
        ):
            if value not in names:
                raise ValueError(f"{name}: {value!r} is not one of {', '.join(names)}")
        key = asked.same(self.config.strategy, game, utility, utility_weights)
        if key not in self._made:
            self._made[key] = self._today(*key) if self.config.scheme >= 3 else self._before(utility, utility_weights)
        return self._made[key]

    @cached_property
    def products(self) -> Products:
        """Of the updates; beside them `carried`, what the strategy carries (where it does), `step`, the round's,
        `previous_step`, that of the round before (where it is kept), `gradient`, that of the validation loss before the
        round, and `root_step`, that of a model trained on the validation set. ValueError where the updates were not
        kept."""
        if self.deltas is None:
            raise ValueError("the updates of this round were not kept, so there are no products of them")
        carried = strategies.carried(self.config.strategy, self.state)
        here = self.weights.to(self.x.device)
        return Products(
            self.deltas.to(self.x.device),
            self._sent,
            {
                **({} if carried is None else {"carried": lambda: carried}),
                "step": lambda: self.after - self.weights,
                **({"previous_step": lambda: self.kept["previous_step"]} if "previous_step" in self.kept else {}),
                "gradient": lambda: products.gradient(self.network, here, self.x, self.y),
                "root_step": self._root_step,
            },
            self._summed if "summed" in self.kept else None,
            self._alone,
        )

    def _summed(self) -> Tensor:
        assert self.deltas is not None, "there are no products where updates are not kept"
        return self.kept["summed"][torch.tensor(self.cohort) - 1] + self.deltas.cpu()

    def _root_step(self) -> Tensor:
        """[P], of a model trained on the validation set as a client trains on its own examples (Cao et al. 2021,
        section IV: the server's model update on its root data set)."""
        own = Data(
            name="validation",
            info=self.config.data_info,
            train_x=self.x,
            train_y=self.y,
            test_x=self.x,
            test_y=self.y,
        )
        task = Task(client=0, indices=torch.arange(len(self.y)))  # whose number nobody else has, nor its draws
        network = copy.deepcopy(self.network)
        (update,) = sequential.train(network, self.weights, [task], own, self.config, self.round_number)
        assert update.delta is not None, "who is honest sends its update"
        return update.delta

    def _alone(self) -> NDArray[np.float64]:
        game = self.of("fedavg", "loss", "renormalised")
        found = np.full(len(self.cohort), -float(game(np.zeros((1, len(game.players)), np.bool_))[0]))
        found[np.isin(self.cohort, game.players)] = -game(np.eye(len(game.players), dtype=np.bool_))
        return found

    @cached_property
    def _sent(self) -> NDArray[np.bool_]:
        """Whose update arrived."""
        return np.array([report.sent for report in self.reports], np.bool_)

    def _plays(self, game: str, utility_weights: str) -> NDArray[np.bool_]:
        norms, scheme = [report.update_norm for report in self.reports], self.config.scheme
        return np.array(
            asked.plays(self.config.strategy, game, utility_weights, self._sent, norms, scheme=scheme), np.bool_
        )

    def roster(self, game: str, utility_weights: str) -> Roster:
        """Who plays a game, for whoever asks no coalition's utility. Who sent something does; of a mean under fixed
        weights, whose update is not zero, which changes nothing."""
        who = np.flatnonzero(self._plays(game, utility_weights)).tolist()
        return Roster(
            players=tuple(self.cohort[place] for place in who),
            num_examples=tuple(self.num_examples[place] for place in who),
            cohort=self.cohort,
        )

    def _today(self, game: str, utility: str, utility_weights: str) -> Game:
        choice = self.config.strategy if game == "server" else kinds.checked("strategy", "fedavg", "strategy")
        roster, plays = self.roster(game, utility_weights), self._plays(game, utility_weights)
        if self.deltas is None:
            return roster
        models = (
            Weighted(self, choice, plays, utility, utility_weights)
            if strategies.weighs(choice)
            else Joined(self, utility, utility_weights)
        )
        sizes = tuple(roster.num_examples)
        return RoundGame(roster.players, sizes, self.cohort, utility, utility_weights, plays, models)

    def _before(self, utility: str, utility_weights: str) -> Game:
        """As schemes 1 and 2 have it: the game of plain federated averaging, whatever the strategy."""
        plays = self._plays("fedavg", utility_weights)
        who = np.flatnonzero(plays).tolist()
        players, num_examples = tuple(self.cohort[place] for place in who), [self.held[place] for place in who]
        if self.deltas is None:
            return Roster(cohort=self.cohort, players=players, num_examples=num_examples)
        device = self.x.device
        return CoalitionGame(
            self.network,
            self.weights.to(device),
            (self.deltas if plays.all() else self.deltas[torch.from_numpy(plays)]).to(device),
            num_examples,
            sum(self.num_examples),
            self.x,
            self.y,
            cohort=self.cohort,
            players=players,
            utility=utility,
            utility_weights=utility_weights,
        )


@dataclass(frozen=True, eq=False)
class RoundGame:
    """Call it with coalitions, bool [m, n], one column per player; it returns their utilities, float64 [m]. Each is
    evaluated once. NaN or infinite where the weights are; it is for the reader of the game to refuse them."""

    players: tuple[int, ...]  # client numbers, a column each
    num_examples: tuple[int, ...]  # of the players
    cohort: tuple[int, ...]  # everybody of the round, players or not
    utility: str
    utility_weights: str
    plays: NDArray[np.bool_]  # who of the cohort does
    models: Weighted | Joined
    known: dict[bytes, float] = field(default_factory=dict, init=False)  # packed coalition -> utility

    def __call__(self, coalitions: NDArray[np.bool_]) -> NDArray[np.float64]:
        coalitions = np.asarray(coalitions)
        if coalitions.dtype != np.bool_ or coalitions.ndim != 2 or coalitions.shape[1] != len(self.players):
            shape = f"{coalitions.dtype} {list(coalitions.shape)}"
            raise ValueError(f"coalitions: expected bool [m, {len(self.players)}], got {shape}")

        def utilities(places: NDArray[np.int64]) -> NDArray[np.float64]:
            members = np.zeros((len(places), len(self.cohort)), np.bool_)
            members[:, self.plays] = coalitions[places]
            return self.models.utilities(members)

        return _once(np.packbits(coalitions, axis=1), self.known, utilities)

    @cached_property
    def carried(self) -> float:
        """What the round is worth without any update, less what the weights before it are: other than 0 where the
        strategy goes on by itself. Exact Shapley values and this sum to what the round gained."""
        if not self.models.goes_on:
            return 0.0
        return float(self(np.zeros((1, len(self.players)), np.bool_))[0]) - self.models.before()


class Weighted:
    """The models of a strategy whose step is a weighted sum of updates and of what it carries."""

    def __init__(
        self, games: RoundGames, choice: Choice, plays: NDArray[np.bool_], utility: str, utility_weights: str
    ) -> None:
        self.games, self.choice, self.plays, self.utility_weights = games, choice, plays, utility_weights
        self.moved = np.array([report.update_norm > 0 for report in games.reports], np.bool_)
        self.state = games.state if choice is games.config.strategy else {}
        carried = strategies.carried(choice, self.state)
        self.goes_on = carried is not None
        device = games.x.device
        assert games.deltas is not None, "where no update was kept there is only a roster"
        self.mixtures = Mixtures(
            games.network,
            games.weights.to(device),
            (games.deltas if plays.all() else games.deltas[torch.from_numpy(plays)]).to(device),
            None if carried is None else carried.to(device),
            self.rows(plays[None])[0],
            games.x,
            games.y,
            utility,
        )

    def utilities(self, members: NDArray[np.bool_]) -> NDArray[np.float64]:
        """[m], of who of the cohort sent something, bool [m, cohort]. Where there are few players, coalitions of which
        the strategy makes the same model are evaluated once; of no two a mean does."""
        blocks = (self.rows(members[part]) for part in slices(len(members), max(1, BLOCK // members.shape[1])))
        if members.shape[1] > GATHER_ABOVE or self.choice.has("mean"):
            return self.mixtures(blocks)
        rows = np.concatenate(list(blocks))
        if len({*_keys(rows)}) == len(rows):
            return self.mixtures([rows])
        return _once(rows, {}, lambda places: self.mixtures([rows[places]]))

    def before(self) -> float:
        return float(self.mixtures([np.zeros((1, 1 + self.plays.sum()))])[0])

    def rows(self, members: NDArray[np.bool_]) -> NDArray[np.float64]:
        """[m, 1 + players]: the coefficients of what is carried and of the players' updates. A zero update has none, so
        that it makes no model another."""
        sizes = there(self.games, members, self.utility_weights)
        found = strategies.coefficients(self.choice, members, sizes, self.games.products, self.state)
        found[:, 1:][:, ~self.moved] = 0.0
        return found[:, np.concatenate([[True], self.plays])]


class Joined:
    """The models of any other strategy, one after another: it joins each coalition's updates itself."""

    goes_on = True  # for all that is known

    def __init__(self, games: RoundGames, utility: str, utility_weights: str) -> None:
        self.games, self.utility, self.utility_weights = games, utility, utility_weights
        assert games.deltas is not None, "where no update was kept there is only a roster"
        self.weights = games.weights.to(games.x.device)
        self.state = {name: tensor.to(games.x.device) for name, tensor in games.state.items()}
        self.updates = [
            Update(
                client=report.client,
                num_examples=report.num_examples,
                sent=delta.to(games.x.device),
                loss_before=report.loss_before,
                loss_after=report.loss_after,
            )
            for report, delta in zip(games.reports, games.deltas, strict=True)
        ]
        self.silent = [replace(update, sent=None, loss_before=None, loss_after=None) for update in self.updates]

    def utilities(self, members: NDArray[np.bool_]) -> NDArray[np.float64]:
        """[m], of who of the cohort sent something, bool [m, cohort]."""
        games, sizes = self.games, there(self.games, members, self.utility_weights)

        def utility(row: int, _: None) -> float:
            updates = [
                update if sends else silent
                for update, silent, sends, size in zip(self.updates, self.silent, members[row], sizes[row], strict=True)
                if size
            ]
            weights, _state = strategies.join(
                games.config, self.weights, updates, int(sizes[row].sum()), dict(self.state)
            )
            return sums_of(games.network, weights, games.x, games.y, self.utility)

        alone = "/" in games.config.strategy.kind  # foreign code may not bear two threads
        workers = 1 if alone else threads.workers_for(games.x)
        found = threads.in_order(utility, range(len(members)), [None] * workers)
        return np.array(list(found), np.float64) / len(games.y)

    def before(self) -> float:
        games = self.games
        return sums_of(games.network, self.weights, games.x, games.y, self.utility) / len(games.y)


def _once(
    rows: NDArray[Any], known: dict[bytes, float], evaluate: Callable[[NDArray[np.int64]], NDArray[np.float64]]
) -> NDArray[np.float64]:
    """float64 [m], of rows [m, k]. `evaluate` is asked for places, one for each of the rows that differ in their bits
    and are not yet `known`; what it finds is known from then on."""
    keys = _keys(rows)
    new = dict(zip(keys, range(len(keys)), strict=True))
    for key in new.keys() & known.keys():
        del new[key]
    if new:
        found = evaluate(np.fromiter(new.values(), np.int64, len(new)))
        known.update(zip(new, found.tolist(), strict=True))
        if len(new) == len(keys):
            return found
    return np.fromiter(map(known.__getitem__, keys), np.float64, len(keys))


def _keys(rows: NDArray[Any]) -> list[bytes]:
    """Of each row of [m, k]; equal where its bits are."""
    width = rows.shape[1] * rows.itemsize
    return np.ascontiguousarray(rows).view(f"V{width}")[:, 0].tolist() if width else [b""] * len(rows)


def there(games: RoundGames, members: NDArray[np.bool_], utility_weights: str) -> NDArray[np.int64]:
    """[m, cohort]: the examples of everybody that is there in a coalition's round, 0 of others. Where nobody sends
    anything, all are."""
    sizes = np.array(games.num_examples, np.int64)
    if utility_weights == "fixed":
        return np.broadcast_to(sizes, members.shape)
    return np.where(members | ~members.any(axis=1, keepdims=True), sizes, 0)


Game = RoundGame | CoalitionGame | Roster
