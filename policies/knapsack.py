"""The exact optimum of one limit, for many values of it: what is known of the table is prepared once.

A supported policy (`policies/hull.py`) and the price of the next step bound what any policy can reach. Options that the
bound rules out are dropped, and the blocks that are left are tried one by one, those whose steps are nearest to the
price first, as in Pisinger's minimal algorithm (https://doi.org/10.1016/0377-2217(95)00015-I). Floats only choose what
is looked at; every bound that drops something is taken in integers, or in floats with their rounding error added.
"""

import bisect
import itertools
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from policies.bound import Picks
from policies.hull import Hull, Point, Whole

MOST_STATES = 400_000
# Of a sum of two floats, rounded thrice; twice as much as needed.
ROUNDING = 8 * 2.0**-53
SWAPS = 50

Floats = npt.NDArray[np.float64]
State = tuple[int, int, Any]  # cost and objective over the start's, (earlier path, option)


class _Option(NamedTuple):
    """A point of a block beside the one that the start takes."""

    cost: int
    objective: int
    place: int


@dataclass(frozen=True)
class _Start:
    """A policy within the limit to start from, and the price that bounds all: `price / unit` objective per cost."""

    places: Whole
    room: int
    unit: int
    price: int


class Knapsack:
    """Least objective within one limit, limit after limit."""

    def __init__(self, hull: Hull) -> None:
        """All blocks have their points."""
        self._hull = hull
        rows = [row for row in hull.points if row is not None]
        self._points: list[Point] = [point for row in rows for point in row]
        sizes = [len(row) for row in rows]
        self._first = np.array([0, *itertools.accumulate(sizes)][:-1])
        self._block = np.repeat(np.arange(len(rows)), sizes)
        low = [(row[0].cost, row[-1].objective) for row in rows]
        self._cost_scale = max(1, *(row[-1].cost - row[0].cost for row in rows))
        self._scale = max(1, *(row[0].objective - row[-1].objective for row in rows))
        self._costs = np.array([(p.cost - low[b][0]) / self._cost_scale for b, row in enumerate(rows) for p in row])
        self._objectives = np.array(
            [(p.objective - low[b][1]) / self._scale for b, row in enumerate(rows) for p in row]
        )
        places = {id(point): place for place, point in enumerate(self._points)}
        self._vertices = [[places[id(point)] for point in row] for row in hull.vertices]

    def best(self, limit: int) -> tuple[Picks | None, int]:
        """(the best policy, a lower bound of its objective); no policy where states or the range of floats run out.

        Args:
            limit: at least the least cost.
        """
        try:
            return self._best(limit)
        except OverflowError:
            return None, self._hull.objectives[-1]

    def _best(self, limit: int) -> tuple[Picks | None, int]:
        hull = self._hull
        at = bisect.bisect_right(hull.costs, limit) - 1
        places = np.array([row[v] for row, v in zip(self._vertices, hull.at(at), strict=True)])
        if at == len(hull.costs) - 1:
            return self._picks(places), hull.objectives[at]
        unit, price = hull.costs[at + 1] - hull.costs[at], hull.objectives[at] - hull.objectives[at + 1]
        start = _Start(places, limit - hull.costs[at], unit, price)
        bound = hull.objectives[at] - price * start.room // unit
        better = min(self._filled(start), self._repaired(start, int(hull.blocks[at])), key=operator.itemgetter(0))
        found = _search(self._left(start, better[0]), start, better[0])
        if found is None:
            return None, bound
        chosen = places.copy()
        for place in found or better[1]:
            chosen[self._block[place]] = place
        return self._picks(chosen), sum(self._points[place].objective for place in chosen)

    def _picks(self, places: Whole) -> Picks:
        return tuple(self._points[place].options for place in places)

    def _filled(self, start: _Start) -> tuple[int, list[int]]:
        """(objective over the start's, changes): single swaps while one fits and lowers the objective."""
        return self._swapped(start.places, start.room, 0, [])

    def _repaired(self, start: _Start, block: int) -> tuple[int, list[int]]:
        """The same from one step beyond the limit, with the cheapest swap that comes back."""
        places = start.places.copy()
        row = self._vertices[block]
        places[block] = row[row.index(int(places[block])) + 1]
        room = start.room - start.unit
        cost, objective = self._over(places)
        back = np.flatnonzero(cost <= room / self._cost_scale * (1 - ROUNDING))
        if not len(back):
            return 0, []
        place = int(back[np.argmin(objective[back])])
        before, after = self._points[places[self._block[place]]], self._points[place]
        room += before.cost - after.cost
        if room < 0:
            return 0, []
        changed = after.objective - before.objective - start.price
        places[self._block[place]] = place
        return self._swapped(places, room, changed, [int(places[block]), place])

    def _swapped(self, places: Whole, room: int, objective: int, changes: list[int]) -> tuple[int, list[int]]:
        places, changes = places.copy(), list(changes)
        for _ in range(SWAPS):
            cost, gained = self._over(places)
            place = int(np.argmin(np.where(cost <= room / self._cost_scale, gained, 0.0)))
            before, after = self._points[places[self._block[place]]], self._points[place]
            if gained[place] >= 0 or after.cost - before.cost > room or after.objective >= before.objective:
                break
            room -= after.cost - before.cost
            objective += after.objective - before.objective
            places[self._block[place]] = place
            changes.append(place)
        return objective, changes

    def _over(self, places: Whole) -> tuple[Floats, Floats]:
        """Cost and objective of every point over that of the block's place."""
        at = places[self._block]
        return self._costs - self._costs[at], self._objectives - self._objectives[at]

    def _left(self, start: _Start, upper: int) -> list[list[_Option]]:
        """Per block with a choice left, the points that some policy better than `upper` may take."""
        slack = start.unit * upper + start.price * start.room
        price = start.price * self._cost_scale / (start.unit * self._scale)
        weighed = self._objectives + price * self._costs
        least = np.minimum.reduceat(weighed, self._first)[self._block]
        near = weighed - least <= slack / (start.unit * self._scale) + ROUNDING * (weighed + least)
        rows: dict[int, list[_Option]] = {}
        for place in np.flatnonzero(near):
            block = int(self._block[place])
            base, point = self._points[start.places[block]], self._points[place]
            option = _Option(point.cost - base.cost, point.objective - base.objective, int(place))
            if point is not base and start.unit * option.objective + start.price * option.cost < slack:
                rows.setdefault(block, []).append(option)
        return list(rows.values())


def _search(rows: Sequence[Sequence[_Option]], start: _Start, upper: int) -> list[int] | None:
    """Changes that make the best policy; none where nothing is better than `upper`; None when states ran out."""
    rows = sorted(rows, key=lambda row: min(_distance(option, start) for option in row))
    shift = max((abs(option.cost) for row in rows for option in row), default=1).bit_length() + 8
    rates = _rates(rows, shift)
    states: list[State] = [(0, 0, None)]
    best: Any = None
    left = MOST_STATES
    for row, (up, down) in zip(rows, rates[1:], strict=True):
        slack = start.unit * upper + start.price * start.room
        grown = list(states)
        for more, objective, place in row:
            if start.unit * objective + start.price * more < slack:
                grown += [(c + more, o + objective, (path, place)) for c, o, path in states]
        left -= len(grown)
        if left < 0:
            return None
        grown.sort(key=operator.itemgetter(0, 1))
        states, low = [], None
        for state in grown:
            cost, objective, path = state
            if low is not None and objective >= low:
                continue
            low, free = objective, start.room - cost
            if free >= 0 and objective < upper:
                upper, best = objective, path
            # What the rest may still gain with the room, or loses to come back within the limit.
            if (down is not None or free >= 0) and (
                (objective - upper << shift) < (up * free if free >= 0 else (down or 0) * free)
            ):
                states.append(state)
    changes: list[int] = []
    while best is not None:
        best, place = best
        changes.append(place)
    return changes


def _distance(option: _Option, start: _Start) -> float:
    """How far the option's own price is from the start's, as a share."""
    return abs(-option.objective / option.cost * (start.unit / start.price) - 1) if option.cost else 0.0


def _rates(rows: Sequence[Sequence[_Option]], shift: int) -> list[tuple[int, int | None]]:
    """What each row and those after it gain at most per cost, and lose at least; in 2**-shift, rounded safely."""
    up, down = 0, None
    found: list[tuple[int, int | None]] = [(up, down)]
    for row in reversed(rows):
        for option in row:
            if option.cost > 0:
                up = max(up, -(option.objective << shift) // option.cost + 1)
            elif option.cost < 0:
                rate = (option.objective << shift) // -option.cost
                down = rate if down is None else min(down, rate)
        found.append((up, down))
    return found[::-1]
