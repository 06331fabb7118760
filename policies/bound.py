"""Exact bounds for an allocation problem: limits are priced by multipliers (Lagrangian relaxation) and not enforced.

Any multipliers >= 0 give a lower bound, here in integers, so no solver's tolerance has a say in it. Options that only
policies worse than a known one could use are dropped.
"""

from dataclasses import dataclass

from policies.table import Block, Option, Problem

# Prices are raised in steps of a 1024th of themselves, up to far beyond any harm.
FINENESS, HIGHEST = 1 << 10, 1 << 90

Picks = tuple[tuple[Option, ...], ...]


@dataclass(frozen=True)
class Prices:
    """Multipliers as integers: a limit's unit costs `of[k] / unit` objective."""

    unit: int
    of: tuple[int, ...]

    def weigh(self, option: Option) -> int:
        """`unit` times objective plus priced costs."""
        return self.unit * option.objective + sum(p * c for p, c in zip(self.of, option.costs, strict=True))


def objective_of(picks: Picks) -> int:
    """Sum of objectives."""
    return sum(option.objective for options in picks for option in options)


def costs_of(picks: Picks, limits: int) -> tuple[int, ...]:
    """Sums of costs, by limit."""
    return tuple(sum(option.costs[k] for options in picks for option in options) for k in range(limits))


def fits(picks: Picks, problem: Problem) -> bool:
    """Whether every limit holds, in integers."""
    return all(cost <= limit for cost, limit in zip(costs_of(picks, len(problem.limits)), problem.limits, strict=True))


def without_impossible(problem: Problem) -> Problem:
    """The problem without options that exceed a limit even beside the cheapest of everything else.

    Where no policy is possible, a block may be left without branches; where one is, none ever is.
    """
    while True:
        smaller = _without_impossible(problem)
        if size(smaller) == size(problem) or not all(block.branches for block in smaller.blocks):
            return smaller
        problem = smaller


def _without_impossible(problem: Problem) -> Problem:
    room = [limit - least for limit, least in zip(problem.limits, least_costs(problem), strict=True)]
    blocks = []
    for block in problem.blocks:
        floor = least_costs(Problem((block,), problem.limits))
        branches = []
        for branch in block.branches:
            own = [[min(o.costs[k] for o in part) for part in branch] for k in range(len(room))]
            over = [sum(least) - low for least, low in zip(own, floor, strict=True)]
            branches.append(
                tuple(
                    tuple(o for o in part if all(o.costs[k] - own[k][p] + over[k] <= room[k] for k in range(len(room))))
                    for p, part in enumerate(branch)
                )
            )
        blocks.append(Block(block.parts, tuple(branch for branch in branches if all(branch))))
    return Problem(tuple(blocks), problem.limits)


def size(problem: Problem) -> int:
    """How many options there are."""
    return sum(len(part) for block in problem.blocks for branch in block.branches for part in branch)


def least_costs(problem: Problem) -> tuple[int, ...]:
    """The least of each cost alone."""
    return tuple(
        sum(
            min(sum(min(o.costs[k] for o in part) for part in branch) for branch in block.branches)
            for block in problem.blocks
        )
        for k in range(len(problem.limits))
    )


def cheapest(problem: Problem, prices: Prices) -> Picks:
    """The best policy when limits are priced and not enforced."""
    return tuple(_cheapest_branch(block, prices) for block in problem.blocks)


def lower_bound(problem: Problem, prices: Prices) -> int:
    """No policy within the limits has `prices.unit * objective` below this."""
    priced = sum(prices.weigh(option) for options in cheapest(problem, prices) for option in options)
    return priced - sum(p * limit for p, limit in zip(prices.of, problem.limits, strict=True))


def rounded(problem: Problem, prices: Prices) -> Picks | None:
    """A good policy within the limits: prices raised until it fits, then spent greedily. None when no price does."""
    start = _start_prices(problem, prices)
    low, high = -1, 0
    while not fits(cheapest(problem, _raised(prices, start, high)), problem):
        low, high = high, max(1, high * 4)
        if high > HIGHEST:
            return None
    while high - low > 1 + high // 64:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if fits(cheapest(problem, _raised(prices, start, middle)), problem) else (middle, high)
        )
    return _spent(problem, cheapest(problem, _raised(prices, start, high)))


def _start_prices(problem: Problem, prices: Prices) -> tuple[int, ...]:
    """What a price is raised by: itself, or for a free limit a price at which it begins to matter."""
    every = [option for block in problem.blocks for branch in block.branches for part in branch for option in part]
    span = max(o.objective for o in every) - min(o.objective for o in every)
    widths = [max(o.costs[k] for o in every) - min(o.costs[k] for o in every) for k in range(len(problem.limits))]
    return tuple(p or prices.unit * span // max(1, width) + 1 for p, width in zip(prices.of, widths, strict=True))


def _raised(prices: Prices, start: tuple[int, ...], step: int) -> Prices:
    return Prices(prices.unit * FINENESS, tuple(p * FINENESS + s * step for p, s in zip(prices.of, start, strict=True)))


def _cheapest_branch(block: Block, prices: Prices) -> tuple[Option, ...]:
    picks = [
        tuple(min(part, key=lambda o: (prices.weigh(o), o.objective)) for part in branch) for branch in block.branches
    ]
    return min(picks, key=lambda options: (sum(map(prices.weigh, options)), sum(o.objective for o in options)))


def _spent(problem: Problem, picks: Picks) -> Picks:
    """Swap single options, best first, while one lowers the objective and fits."""
    room = [limit - cost for limit, cost in zip(problem.limits, costs_of(picks, len(problem.limits)), strict=True)]
    chosen = [list(options) for options in picks]
    swaps = [
        (option.objective - now.objective, b, p, option)
        for b, block in enumerate(problem.blocks)
        for branch in block.branches
        if all(now in part for now, part in zip(picks[b], branch, strict=True))
        for p, (now, part) in enumerate(zip(picks[b], branch, strict=True))
        for option in part
        if option.objective < now.objective
    ]
    for _, b, p, option in sorted(swaps):
        now = chosen[b][p]
        more = [new - old for new, old in zip(option.costs, now.costs, strict=True)]
        if option.objective < now.objective and all(m <= r for m, r in zip(more, room, strict=True)):
            room = [r - m for r, m in zip(room, more, strict=True)]
            chosen[b][p] = option
    return tuple(map(tuple, chosen))


def without_hopeless(problem: Problem, prices: Prices, upper: int) -> Problem:
    """The problem without options that no policy of objective <= `upper` within the limits uses."""
    slack = prices.unit * upper - lower_bound(problem, prices)
    blocks = []
    for block in problem.blocks:
        least = [[min(map(prices.weigh, part)) for part in branch] for branch in block.branches]
        floor = min(map(sum, least))
        branches = [
            tuple(
                tuple(o for o in part if sum(at) - at[p] + prices.weigh(o) - floor <= slack)
                for p, part in enumerate(branch)
            )
            for branch, at in zip(block.branches, least, strict=True)
        ]
        blocks.append(Block(block.parts, tuple(branch for branch in branches if all(branch))))
    return Problem(tuple(blocks), problem.limits)
