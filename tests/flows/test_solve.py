"""`mixbit solve`."""

import copy
import json

import pytest
from click.testing import CliRunner

from flows.solve import solve


def choice(bits, harm, bitops):
    return {"weight_bits": bits, "activation_bits": bits, "harm": harm, "costs": {"bitops": bitops}}


PROBLEM = {
    "layers": [
        {"name": "a", "choices": [choice(2, 3.0, 4), choice(4, 1.0, 16)]},
        {"name": "b", "choices": [choice(2, 2.0, 4), choice(4, 1.0, 16)]},
    ],
    "budgets": {"bitops": 20},
}


@pytest.fixture
def run(tmp_path):
    def _run(problem, *options):
        path = tmp_path / "problem.json"
        if problem is not None:
            path.write_bytes(problem if isinstance(problem, bytes) else json.dumps(problem).encode())
        return CliRunner().invoke(solve, [str(path), *options])

    return _run


def changed(change):
    problem = copy.deepcopy(PROBLEM)
    change(problem)
    return problem


def test_the_proven_answer_is_one_object_and_exit_0(run):
    result = run(PROBLEM, "--json")
    answer = json.loads(result.stdout)
    assert answer.pop("seconds") >= 0
    assert (result.exit_code, result.stderr) == (0, "")
    assert answer == {
        "status": "optimal",
        "objective": 3.0,
        "policy": {"a": {"weight_bits": 4, "activation_bits": 4}, "b": {"weight_bits": 2, "activation_bits": 2}},
        "costs": {"bitops": 20},
        "gap": 0,
    }


def test_an_infeasible_budget_is_exit_1_with_the_smallest_feasible(run):
    result = run(PROBLEM | {"budgets": {"bitops": 7}}, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (
        1,
        {"status": "infeasible", "smallest_feasible": {"bitops": 8}},
    )


def test_groups_share_both_bits(run):
    answer = json.loads(run(PROBLEM | {"groups": [["a", "b"]]}, "--json").stdout)
    assert answer["policy"]["a"] == answer["policy"]["b"] == {"weight_bits": 2, "activation_bits": 2}


def test_no_budget_means_least_harm(run):
    assert json.loads(run(PROBLEM | {"budgets": {}}, "--json").stdout)["objective"] == 2.0


def test_foreign_bits_and_float_costs_are_taken_as_written(run):
    layer = {"name": "a", "choices": [choice(16, 1, 0.1), choice("float", 0, 0.3)]}
    answer = json.loads(run({"layers": [layer], "budgets": {"bitops": 0.3}}, "--json").stdout)
    assert answer["policy"] == {"a": {"weight_bits": "float", "activation_bits": "float"}}
    assert answer["costs"] == {"bitops": 0.3}


def test_without_json_a_reader_sees_bits_costs_and_proof(run):
    result = run(PROBLEM)
    assert result.exit_code == 0
    assert "bitops       20 of 20" in result.stdout
    assert "proven optimal" in result.stdout


def test_what_can_not_be_proven_in_time_is_feasible_with_its_gap_and_exit_1(run):
    costs = [2 * (10**11 + 7919**3 * i * i) for i in range(60)]
    layers = [{"name": f"l{i}", "choices": [choice(2, c, 0), choice(4, 0, c)]} for i, c in enumerate(costs)]
    problem = {"layers": layers, "budgets": {"bitops": sum(costs) // 2 + 1}}
    result = run(problem, "--json", "--time-limit", "1")
    answer = json.loads(result.stdout)
    assert (result.exit_code, answer["status"]) == (1, "feasible")
    assert answer["gap"] > 0


FIRST = "layers[0].choices[0]"
NUMBER = "expected a number from 0 to 1e300"


def top(**changes):
    return lambda problem: problem.update(changes)


def layer(**changes):
    return lambda problem: problem["layers"][0].update(changes)


def entry(**changes):
    return lambda problem: problem["layers"][0]["choices"][0].update(changes)


def strange_group(problem):
    problem["layers"].append({"name": "c", "choices": [choice(3, 1, 1)]})
    problem["groups"] = [["a", "c"]]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (entry(harm=float("nan")), f"{FIRST}.harm: {NUMBER}, got NaN"),
        (entry(harm=float("inf")), f"{FIRST}.harm: {NUMBER}, got Infinity"),
        (entry(harm=-1), f"{FIRST}.harm: {NUMBER}, got -1"),
        (entry(harm=True), f"{FIRST}.harm: {NUMBER}, got true"),
        (entry(harm="1"), f'{FIRST}.harm: {NUMBER}, got "1"'),
        (entry(harm=10**400), f"{FIRST}.harm: {NUMBER}, got 1000"),
        (entry(costs={}), f"{FIRST}.costs.bitops: missing"),
        (entry(costs={"bitops": None}), f"{FIRST}.costs.bitops: {NUMBER}, got null"),
        (entry(costs=[]), f"{FIRST}.costs: expected an object with bitops, got []"),
        (entry(weight_bits=0), f"{FIRST}.weight_bits: expected a whole number >= 1, or float, got 0"),
        (entry(weight_bits=4.0), f"{FIRST}.weight_bits: expected a whole number >= 1, or float, got 4.0"),
        (lambda p: p["layers"][0]["choices"][0].pop("harm"), f"{FIRST}.harm: missing"),
        (layer(choices=[choice(2, 1, 1)] * 2), "layers[0].choices[1]: has the bits of an earlier choice, got 2, 2"),
        (layer(choices=[]), "layers[0].choices: expected at least one choice, got []"),
        (layer(name="b"), 'layers[1].name: is the name of an earlier layer too, got "b"'),
        (layer(name=3), "layers[0].name: expected a name of printable characters, got 3"),
        (layer(nam=3), "layers[0].nam: unknown key. Did you mean name?"),
        (top(layers=[]), "layers: expected at least one layer, got []"),
        (top(layers={}), "layers: expected a list of layers, got {}"),
        (top(budgets=[]), "budgets: expected an object: cost name -> most of it, got []"),
        (top(budgets={"bitop": 4}), "budgets.bitop: no choice has this cost. Did you mean bitops?"),
        (top(budgets={"bitops": float("nan")}), f"budgets.bitops: {NUMBER}, got NaN"),
        (top(budgets={"bitops": -1}), f"budgets.bitops: {NUMBER}, got -1"),
        (top(groups=[["a", "bb"]]), 'groups[0][1]: no such layer, got "bb". Did you mean b?'),
        (top(groups="a"), 'groups: expected a list of groups, got "a"'),
        (top(x=1), "x: unknown key"),
        (lambda p: p.pop("budgets"), "budgets: missing"),
        (strange_group, "groups[0]: a, c have no choice in common"),
    ],
)
def test_a_bad_table_is_exit_2_with_the_place(run, change, line):
    result = run(changed(change), "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert f"error: problem.json: {line}" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_every_fault_is_told_at_once(run):
    def change(problem):
        problem["layers"][0]["choices"][0].update(harm=-1, weight_bits=True)
        problem["layers"][1]["choices"] = []
        del problem["layers"][0]["choices"][1]["harm"]
        problem["layers"][0]["choices"][1]["costs"]["bitops"] = -2
        problem["budgets"] = {"size": 1}

    assert len(run(changed(change)).stderr.splitlines()) == 6


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"\xff\xfe", b"[1]", b"3", b"[" * 100_000, b'{"layers": [], "layers": []}']
)
def test_a_file_that_is_no_table_is_exit_2_and_one_line(run, content):
    result = run(content, "--json")
    assert (result.exit_code, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert "problem.json" in result.stderr


def test_groups_that_clash_through_a_third_are_exit_2(run):
    layers = [
        {"name": n, "choices": [choice(b, 1, 1) for b in bits]}
        for n, bits in (("a", [2, 3]), ("b", [3, 4]), ("c", [2, 4]))
    ]
    result = run({"layers": layers, "groups": [["a", "b"], ["b", "c"]], "budgets": {}})
    assert result.exit_code == 2
    assert "group a, b, c: no entry that all its layers can take" in result.stderr
