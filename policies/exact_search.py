"""Exact search for an allocation problem, in integers: the evidence behind the word `optimal`.

Layer by layer, partial policies are kept unless another beats them in everything (dominance) or their bound exceeds a
known policy, as in Pisinger's algorithm for the multiple-choice knapsack problem
(https://doi.org/10.1016/0377-2217(95)00015-I). Our own: several limits, tied layers, and a bound that also charges for
budget that the remaining layers can't use up.
"""

import bisect
import operator
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from policies.bound import Picks, Prices, lower_bound
from policies.table import Block, Branch, Option, Problem

MOST_AT_ONCE = 400_000
LOOK_EVERY = 4096
WINDOW = 32

State = tuple[tuple[int, ...], int, int, Any]  # costs, objective, excess over the bound, (earlier path, option)
Step = tuple[tuple[int, Option], ...]  # options of a part with their excess, least first


class _TooManyError(Exception):
    """States or seconds ran out."""


@dataclass
class _Reach:
    """What may still be built: `slack` over the bound, and how many states, until when."""

    prices: Prices
    slack: int
    deadline: float
    left: int

    def extend(self, states: Sequence[State], step: Step, most: Sequence[int], used: Sequence[int]) -> list[State]:
        """Every state with every option that keeps hope.

        Args:
            states: partial policies.
            step: the next part's options.
            most: per limit, the most that may be spent by now.
            used: per limit, what is spent by now when nothing is left unused at the end.
        """
        out: list[State] = []
        for count, (costs, objective, excess, path) in enumerate(states):
            if count % LOOK_EVERY == 0 and time.monotonic() > self.deadline:
                raise _TooManyError
            for more, option in step:
                if excess + more > self.slack:
                    break
                total = tuple(map(operator.add, costs, option.costs))
                unused = sum(p * (u - t) for p, t, u in zip(self.prices.of, total, used, strict=True) if t < u)
                if all(map(operator.le, total, most)) and excess + more + unused <= self.slack:
                    out.append((total, objective + option.objective, excess + more, (path, option)))
            if len(out) > min(MOST_AT_ONCE, self.left):
                raise _TooManyError
        self.left -= len(out)
        return out


def search(
    problem: Problem, prices: Prices, upper: int, deadline: float, most_states: int
) -> tuple[Picks | None, bool]:
    """The best policy.

    Args:
        problem: what to solve.
        prices: multipliers of a good lower bound.
        upper: objective of a known policy; worse ones are not looked for.
        deadline: when to stop, in seconds of the monotonic clock.
        most_states: when to stop, in partial policies; the same on every machine.

    Returns:
        (the policy of least objective <= `upper`, or None when there is none; whether the search was complete).
    """
    order = sorted(range(len(problem.blocks)), key=lambda b: (-_spread(problem.blocks[b], prices), b))
    blocks = [problem.blocks[b] for b in order]
    reach = _Reach(prices, prices.unit * upper - lower_bound(problem, prices), deadline, most_states)
    after = _ranges(blocks, len(problem.limits))
    states: list[State] = [((0,) * len(problem.limits), 0, 0, None)]
    try:
        for block, (low, high) in zip(blocks, after, strict=True):
            states = _through(block, states, reach, _minus(problem.limits, low), _minus(problem.limits, high))
    except _TooManyError:
        return None, False
    if not states:
        return None, True
    best = min(states, key=operator.itemgetter(1, 0))
    return _picks(best[3], blocks, order), True


def _through(
    block: Block, states: list[State], reach: _Reach, most: tuple[int, ...], used: tuple[int, ...]
) -> list[State]:
    """States before a block -> states after it, over all its branches."""
    weights = [[[reach.prices.weigh(option) for option in part] for part in branch] for branch in block.branches]
    floor = min(sum(map(min, parts)) for parts in weights)
    grown: list[State] = []
    for branch, parts in zip(block.branches, weights, strict=True):
        front = states
        extra = sum(map(min, parts)) - floor
        for p, part in enumerate(branch):
            pairs = [(w - min(parts[p]) + extra, option) for w, option in zip(parts[p], part, strict=True)]
            step = tuple(sorted(pairs, key=operator.itemgetter(0)))
            low, high = _range(branch[p + 1 :], len(most))
            front = _undominated(reach.extend(front, step, _minus(most, low), _minus(used, high)))
            extra = 0
        grown += front
    return _undominated(grown) if len(block.branches) > 1 else grown


def _undominated(states: list[State]) -> list[State]:
    """States that no other beats; complete for one and two limits, for more a cheap part of it."""
    states.sort(key=operator.itemgetter(0, 1))
    limits = len(states[0][0]) if states else 0
    if limits == 0:
        return states[:1]
    if limits == 1:
        return _staircase_of_one(states)
    return _staircase_of_two(states) if limits == 2 else _windowed(states)


def _staircase_of_one(states: list[State]) -> list[State]:
    kept: list[State] = []
    for state in states:
        if not kept or state[1] < kept[-1][1]:
            kept.append(state)
    return kept


def _staircase_of_two(states: list[State]) -> list[State]:
    """Sorted by the first cost; a staircase of (second cost up, objective down) tells who is beaten."""
    kept: list[State] = []
    seconds: list[int] = []
    objectives: list[int] = []
    for state in states:
        second, objective = state[0][1], state[1]
        at = bisect.bisect_right(seconds, second)
        if at and objectives[at - 1] <= objective:
            continue
        end = at
        while end < len(seconds) and objectives[end] >= objective:
            end += 1
        start = at - 1 if at and seconds[at - 1] == second else at
        seconds[start:end], objectives[start:end] = [second], [objective]
        kept.append(state)
    return kept


def _windowed(states: list[State]) -> list[State]:
    kept: list[State] = []
    for state in states:
        near = kept[-WINDOW:]
        if not any(k[1] <= state[1] and all(map(operator.le, k[0], state[0])) for k in near):
            kept.append(state)
    return kept


def _ranges(blocks: Sequence[Block], limits: int) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """Per block, the least and most that the blocks after it can cost."""
    low, high = (0,) * limits, (0,) * limits
    found = []
    for block in reversed(blocks):
        found.append((low, high))
        ends = [_range(branch, limits) for branch in block.branches]
        low = tuple(x + min(end[0][k] for end in ends) for k, x in enumerate(low))
        high = tuple(x + max(end[1][k] for end in ends) for k, x in enumerate(high))
    return found[::-1]


def _range(parts: Branch, limits: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    low = tuple(sum(min(option.costs[k] for option in part) for part in parts) for k in range(limits))
    high = tuple(sum(max(option.costs[k] for option in part) for part in parts) for k in range(limits))
    return low, high


def _minus(values: Sequence[int], others: Sequence[int]) -> tuple[int, ...]:
    return tuple(map(operator.sub, values, others))


def _spread(block: Block, prices: Prices) -> int:
    """How much budget hangs on a block, priced: big ones first, so that small ones fill the budget at the end."""
    costs = [
        sum(p * c for p, c in zip(prices.of, o.costs, strict=True))
        for branch in block.branches
        for part in branch
        for o in part
    ]
    return max(costs) - min(costs)


def _picks(path: Any, blocks: Sequence[Block], order: Sequence[int]) -> Picks:
    flat: list[Option] = []
    while path is not None:
        path, option = path
        flat.append(option)
    flat.reverse()
    picks: list[tuple[Option, ...]] = [()] * len(blocks)
    for block, place in zip(blocks, order, strict=True):
        picks[place], flat = tuple(flat[: len(block.parts)]), flat[len(block.parts) :]
    return tuple(picks)
