"""Every policy that is best under some price of one limit: the lower convex hull of (cost, objective), in integers.

Layers are independent, so the hull of the whole is the steps of each layer's hull, steepest first: the linear
relaxation of the multiple-choice knapsack problem (Sinha and Zoltners 1979, https://doi.org/10.1287/opre.27.3.503). Our
own: layers that share bits are one class, whose hull is that of all their branches.
"""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from policies.table import Block, Branch, Option, Problem

# Layers that share bits have at most this many undominated sums, or only their hull is known.
MOST_POINTS = 20_000

Whole = npt.NDArray[np.int64]


class Point(NamedTuple):
    """One choice for a block: an option of each part."""

    cost: int
    objective: int
    options: tuple[Option, ...]


@dataclass(frozen=True)
class Hull:
    """The supported policies of a problem, cheapest first.

    Attributes:
        points: per block its undominated choices, cost up and objective down; None when they are too many.
        vertices: per block those on its hull.
        blocks: the block of each step from one supported policy to the next.
        costs: of the supported policies, rising.
        objectives: of these, falling.
    """

    points: tuple[tuple[Point, ...] | None, ...]
    vertices: tuple[tuple[Point, ...], ...]
    blocks: Whole
    costs: list[int]
    objectives: list[int]

    def at(self, place: int) -> Whole:
        """The vertex of each block in a supported policy: as many as the block took of the steps so far."""
        return np.bincount(self.blocks[:place], minlength=len(self.vertices))


def hull_of(problem: Problem) -> Hull:
    """The hull of a problem with one limit, whatever that is."""
    points = tuple(_points(block) for block in problem.blocks)
    vertices = tuple(
        _lower(found if found is not None else _hull_points(block))
        for found, block in zip(points, problem.blocks, strict=True)
    )
    steps = [
        (after.cost - before.cost, after.objective - before.objective, place)
        for place, row in enumerate(vertices)
        for before, after in itertools.pairwise(row)
    ]
    # Two different slopes differ by more than 2**-shift, so whole numbers order them.
    shift = 2 * max((cost for cost, _, _ in steps), default=1).bit_length()
    steps.sort(key=lambda step: (step[1] << shift) // step[0])
    blocks = np.array([place for _, _, place in steps], dtype=np.int64)
    costs = itertools.accumulate((cost for cost, _, _ in steps), initial=sum(row[0].cost for row in vertices))
    objectives = itertools.accumulate((more for _, more, _ in steps), initial=sum(row[0].objective for row in vertices))
    return Hull(points, vertices, blocks, list(costs), list(objectives))


def _points(block: Block) -> tuple[Point, ...] | None:
    """Undominated choices of a block."""
    found: list[Point] = []
    for branch in block.branches:
        sums = [Point(0, 0, ())]
        for part in branch:
            if len(sums) * len(part) > MOST_POINTS:
                return None
            sums = _staircase(_plus(point, option) for point in sums for option in part)
        found += sums
    return tuple(_staircase(found) if len(block.branches) > 1 else found)


def _plus(point: Point, option: Option) -> Point:
    return Point(point.cost + option.costs[0], point.objective + option.objective, (*point.options, option))


def _staircase(points: Iterable[Point]) -> list[Point]:
    kept: list[Point] = []
    for point in sorted(points, key=lambda p: (p.cost, p.objective)):
        if not kept or point.objective < kept[-1].objective:
            kept.append(point)
    return kept


def _hull_points(block: Block) -> list[Point]:
    """Choices of a block of which some are its hull."""
    return _staircase(itertools.chain.from_iterable(map(_merged, block.branches)))


def _merged(branch: Branch) -> list[Point]:
    """The hull of one branch: its parts are free, so it is their steps by slope."""
    rows = [_lower(_staircase(Point(o.costs[0], o.objective, (o,)) for o in part)) for part in branch]
    hull = hull_of(Problem(tuple(Block(((),), (((*(p.options[0] for p in row),),),)) for row in rows), (0,)))
    taken = [0] * len(rows)
    found = [_sum(rows, taken)]
    for place in hull.blocks:
        taken[place] += 1
        found.append(_sum(rows, taken))
    return found


def _sum(rows: Sequence[Sequence[Point]], taken: Sequence[int]) -> Point:
    chosen = [row[at] for row, at in zip(rows, taken, strict=True)]
    return Point(sum(p.cost for p in chosen), sum(p.objective for p in chosen), tuple(p.options[0] for p in chosen))


def _lower(points: Sequence[Point]) -> tuple[Point, ...]:
    """The lower convex hull of a staircase."""
    hull: list[Point] = []
    for point in points:
        while len(hull) > 1 and _above(hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return tuple(hull)


def _above(before: Point, middle: Point, after: Point) -> bool:
    """Whether the middle point lies on or above the line between the others."""
    rise = (middle.objective - before.objective) * (after.cost - before.cost)
    return rise >= (after.objective - before.objective) * (middle.cost - before.cost)
