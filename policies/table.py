"""An allocation problem in exact integers: what the table says, without rounding, smaller where nothing is lost.

A float means the decimal it prints as, so 0.1 + 0.2 fits a limit of 0.3. Ties in harm are part of the objective: of two
policies of equal harm the one with lower costs wins, cost by cost in the order of their names.
"""

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from mixbit.errors import MisuseError, MixbitError
from mixbit.faults import did_you_mean
from mixbit.policy import Entry, NumBits

Number = int | float | Fraction
Candidate = tuple[Number, Mapping[str, Number]]
Table = Mapping[str, Mapping[Entry, Candidate]]
Groups = Sequence[Sequence[str]]

MOST_BRANCHES = 4096


class Option(NamedTuple):
    """One entry of a part: `objective` is harm with ties broken, `costs` go by limit."""

    objective: int
    costs: tuple[int, ...]
    entry: Entry


Branch = tuple[tuple[Option, ...], ...]


@dataclass(frozen=True)
class Block:
    """Parts that are tied to each other; a part is a layer, or layers that share both bits.

    Attributes:
        parts: layer names per part.
        branches: one per assignment of the bits that parts share; per part its options. Given a branch, parts are free.
    """

    parts: tuple[tuple[str, ...], ...]
    branches: tuple[Branch, ...]


@dataclass(frozen=True)
class Problem:
    """Least sum of `objective` with every sum of costs at most its limit."""

    blocks: tuple[Block, ...]
    limits: tuple[int, ...]


@dataclass(frozen=True)
class Ties:
    """Names of layers that share bits; membership is transitive."""

    both: Groups = ()
    weight: Groups = ()
    activation: Groups = ()


@dataclass(frozen=True)
class Exact:
    """A problem with the way back to the user's units: harm = (objective // tie_span) / harm_unit, and so on."""

    problem: Problem
    names: tuple[str, ...]
    harm_unit: int
    tie_span: int
    cost_units: tuple[int, ...]

    def harm(self, objective: int) -> Fraction:
        """Harm of an objective value."""
        return Fraction(objective // self.tie_span, self.harm_unit)

    def floors(self, limits: Mapping[str, Number]) -> tuple[int, ...]:
        """Limits on the same costs as whole numbers.

        Raises:
            MisuseError: numbers that are not finite and >= 0.
        """
        asked = zip(self.names, self.cost_units, strict=True)
        return tuple(math.floor(_checked(limits[name], f"budget {name}") * unit) for name, unit in asked)


def exact(value: Number) -> int | Fraction:
    """The number that was written."""
    return Fraction(repr(value)) if isinstance(value, float) else value


def exact_problem(table: Table, limits: Mapping[str, Number], ties: Ties) -> Exact:
    """The table as integers, merged by ties, without entries that can never be in the chosen policy.

    Args:
        table: layer -> entry -> (harm, cost name -> cost); finite and >= 0, the same cost names everywhere.
        limits: cost name -> most of it.
        ties: layers that share bits.

    Raises:
        MisuseError: an empty table or layer, numbers that are not finite and >= 0, a missing cost, a limit on an
            unknown cost, an unknown layer in a tie, ties without a common entry.
        MixbitError: ties so entangled that their assignments can't be listed.
    """
    if not table:
        raise MisuseError("table", "no layers")
    known = sorted(next((costs for row in table.values() for _, costs in row.values()), ()))
    rows = {name: _exact_row(name, table[name], known) for name in sorted(table)}
    for name in sorted(set(limits) - set(known)):
        raise MisuseError(f"budget {name}", "unknown cost", expected=" or ".join(known), got=name)
    names = tuple(sorted(limits))
    harm_unit = unit_of(harm for row in rows.values() for harm, _ in row.values())
    units = {name: unit_of(costs[name] for row in rows.values() for _, costs in row.values()) for name in known}
    spans = {
        name: 1 + sum(max(int(costs[name] * units[name]) for _, costs in row.values()) for row in rows.values())
        for name in known
    }
    tie_span = math.prod(spans.values())

    def option(entry: Entry, harm: int | Fraction, costs: Mapping[str, int | Fraction]) -> Option:
        whole = {name: int(costs[name] * units[name]) for name in known}
        tie = 0
        for name in known:
            tie = tie * spans[name] + whole[name]
        return Option(int(harm * harm_unit) * tie_span + tie, tuple(whole[name] for name in names), entry)

    options = {
        name: {entry: option(entry, *candidate) for entry, candidate in row.items()} for name, row in rows.items()
    }
    floors = tuple(math.floor(_checked(limits[name], f"budget {name}") * units[name]) for name in names)
    problem = Problem(tuple(_blocks(options, ties)), floors)
    return Exact(problem, names, harm_unit, tie_span, tuple(units[name] for name in names))


def undominated(options: Iterable[Option]) -> tuple[Option, ...]:
    """Options that no other beats or equals in everything, by objective; of equal ones the first."""
    kept: list[Option] = []
    for option in sorted(options, key=lambda o: (o.objective, o.costs)):
        if not any(all(map(int.__le__, other.costs, option.costs)) for other in kept):
            kept.append(option)
    return tuple(kept)


def for_cost(problem: Problem, index: int) -> Problem:
    """The same parts, asked for the least of one cost under the other limits."""

    def turned(option: Option) -> Option:
        costs = option.costs
        return Option(costs[index], costs[:index] + costs[index + 1 :], option.entry)

    blocks = tuple(
        Block(block.parts, tuple(tuple(undominated(map(turned, part)) for part in branch) for branch in block.branches))
        for block in problem.blocks
    )
    return Problem(blocks, problem.limits[:index] + problem.limits[index + 1 :])


def _exact_row(
    name: str, row: Mapping[Entry, Candidate], known: Sequence[str]
) -> dict[Entry, tuple[int | Fraction, dict[str, int | Fraction]]]:
    """Entries from low to high bits, so that no order of a dict decides anything."""
    found = {}
    for entry, (harm, costs) in sorted(row.items(), key=by_bits):
        where = f"{name}: weight_bits {entry[0]}, activation_bits {entry[1]}"
        if sorted(costs) != known:
            raise MisuseError(where, "costs differ", expected=", ".join(known), got=", ".join(sorted(costs)))
        found[entry] = (
            _checked(harm, f"{where}: harm"),
            {cost: _checked(costs[cost], f"{where}: {cost}") for cost in known},
        )
    if not found:
        raise MisuseError(name, "no entries")
    return found


def _checked(value: Number, where: str) -> int | Fraction:
    if not math.isfinite(value) or value < 0:
        raise MisuseError(where, "", expected="a finite number >= 0", got=value)
    return exact(value)


def by_bits(item: tuple[Entry, object]) -> tuple[float, float]:
    """To sort what is by entry from low to high bits, so that no order of a dict decides anything."""
    weight_bits, activation_bits = item[0]
    return _as_number(weight_bits), _as_number(activation_bits)


def _as_number(bits: NumBits) -> float:
    return math.inf if bits == "float" else bits


def unit_of(values: Iterable[int | Fraction]) -> int:
    """The least number that makes whole numbers of all values."""
    return math.lcm(*{value.denominator for value in values})


def _blocks(options: dict[str, dict[Entry, Option]], ties: Ties) -> list[Block]:
    owner = _classes(options, ties.both)
    members: dict[str, list[str]] = {}
    for name, root in owner.items():
        members.setdefault(root, []).append(name)
    merged = {root: _merged([options[name] for name in names], names) for root, names in members.items()}
    weight = _classes(merged, [[owner[name] for name in _known(group, owner)] for group in ties.weight])
    activation = _classes(merged, [[owner[name] for name in _known(group, owner)] for group in ties.activation])
    chains = _chains(weight) + _chains(activation)
    whole = _classes(merged, chains)
    blocks = []
    for root in sorted(set(whole.values())):
        parts = [name for name in merged if whole[name] == root]
        names = tuple(tuple(members[part]) for part in parts)
        shared = [[(kind, c[part]) for kind, c in enumerate((weight, activation))] for part in parts]
        blocks.append(Block(names, _branches([merged[part] for part in parts], shared, names)))
    return blocks


def _known(group: Sequence[str], owner: Mapping[str, str]) -> Sequence[str]:
    for name in group:
        if name not in owner:
            raise MisuseError("groups", "unknown layer", got=name, hint=did_you_mean(name, sorted(owner), "Layers"))
    return group


def _classes(names: Iterable[str], groups: Groups) -> dict[str, str]:
    """Name -> the first name of its class."""
    parent = {name: name for name in names}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for group in groups:
        roots = {root(name) for name in _known(group, parent)}
        for name in roots:
            parent[name] = min(roots)
    return {name: root(name) for name in parent}


def _chains(classes: Mapping[str, str]) -> list[list[str]]:
    return [[name, root] for name, root in classes.items()]


def _merged(rows: list[dict[Entry, Option]], names: Sequence[str]) -> dict[Entry, Option]:
    """Entries that all rows have, summed."""
    common = [entry for entry in rows[0] if all(entry in row for row in rows)]
    if not common:
        raise MisuseError(
            f"group {', '.join(names)}", "no entry that all its layers can take", hint="Ungroup them or add num_bits"
        )
    return {entry: _sum([row[entry] for row in rows]) for entry in common}


def _sum(options: Sequence[Option]) -> Option:
    costs = tuple(sum(column) for column in zip(*(option.costs for option in options), strict=True))
    return Option(sum(option.objective for option in options), costs, options[0].entry)


def _branches(
    rows: list[dict[Entry, Option]], shared: list[list[tuple[int, str]]], names: tuple[tuple[str, ...], ...]
) -> tuple[Branch, ...]:
    """Every assignment of the bits that several parts share."""
    sharing = Counter(key for keys in shared for key in keys)
    tied = sorted(key for key, times in sharing.items() if times > 1)
    values = [_values(rows, shared, key) for key in tied]
    if math.prod(map(len, values)) > MOST_BRANCHES:
        listed = ", ".join(name for part in names for name in part)
        raise MixbitError(f"groups over {listed}", "too entangled to list", hint="Let fewer layers share bits")
    branches = []
    for assignment in itertools.product(*values):
        chosen = dict(zip(tied, assignment, strict=True))
        branch = tuple(
            undominated(o for e, o in row.items() if all(chosen.get(key, e[key[0]]) == e[key[0]] for key in keys))
            for row, keys in zip(rows, shared, strict=True)
        )
        if all(branch):
            branches.append(branch)
    if not branches:
        listed = ", ".join(name for part in names for name in part)
        raise MisuseError(
            f"group {listed}", "no bits that all its layers can take", hint="Ungroup them or add num_bits"
        )
    return tuple(branches)


def _values(
    rows: list[dict[Entry, Option]], shared: list[list[tuple[int, str]]], key: tuple[int, str]
) -> list[NumBits]:
    """Bits that every part sharing `key` can take."""
    of_parts = [{entry[key[0]] for entry in row} for row, keys in zip(rows, shared, strict=True) if key in keys]
    return sorted(set.intersection(*of_parts), key=_as_number)
