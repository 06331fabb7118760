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


def test_a_front_lists_every_budget_with_its_exact_answer(run):
    result = run(PROBLEM, "--front", "3", "--json")
    told = json.loads(result.stdout)
    assert result.exit_code == 0
    assert [(row["budgets"]["bitops"], row["objective"], row["costs"]["bitops"]) for row in told["front"]] == [
        (8, 5.0, 8),
        (20, 3.0, 20),
        (32, 2.0, 32),
    ]
    assert told["front"][1]["policy"]["a"] == {"weight_bits": 4, "activation_bits": 4}
    assert told["supported"] == [{"cost": c, "objective": h} for c, h in ((8, 5.0), (20, 3.0), (32, 2.0))]


def test_a_front_in_words_has_a_row_per_budget_and_counts_flips(run):
    lines = run(PROBLEM, "--front", "3").stdout.splitlines()
    assert [line.split()[:4] for line in lines[:4]] == [
        ["bitops", "used", "harm", "flips"],
        ["8", "8", "5", "-"],
        ["20", "20", "3", "1"],
        ["32", "32", "2", "1"],
    ]
    assert lines[-1].endswith("3 supported policies in all")


def test_a_front_over_two_costs_says_infeasible_where_ties_need_more(run):
    def tied(problem):
        for layer in problem["layers"]:
            for at, one in enumerate(layer["choices"]):
                one["costs"]["size"] = at
        problem["layers"][0]["choices"][0]["costs"]["bitops"] = 20
        problem |= {"groups": [["a", "b"]], "budgets": {"bitops": 1, "size": 1}}

    rows = json.loads(run(changed(tied), "--front", "2", "--json").stdout)["front"]
    assert [row["status"] for row in rows] == ["infeasible", "optimal"]


@pytest.mark.parametrize("name", ["front.svg", "front.png"])
def test_a_front_is_drawn(run, tmp_path, name):
    assert run(PROBLEM, "--front", "5", "--plot", str(tmp_path / name)).exit_code == 0
    assert (tmp_path / name).stat().st_size > 1000


def test_ranges_say_where_the_answer_stays_the_best(run):
    result = run(PROBLEM | {"budgets": {"bitops": 22}}, "--ranges", "--json")
    assert json.loads(result.stdout)["stays_optimal"] == {"bitops": {"least": 20, "below": 32}}
    assert "best from 20 to below 32" in run(PROBLEM, "--ranges").stdout
    assert "best from 32 on" in run(PROBLEM | {"budgets": {"bitops": 99}}, "--ranges").stdout


@pytest.fixture
def tables(tmp_path):
    """The problem, and the same with the harms of the two layers swapped."""
    other = changed(lambda p: [layer.update(name=name) for layer, name in zip(p["layers"], "ba", strict=True)])
    for name, problem in (("s0.json", PROBLEM), ("s1.json", other), ("s2.json", PROBLEM)):
        (tmp_path / name).write_text(json.dumps(problem))
    return [str(tmp_path / name) for name in ("s0.json", "s1.json", "s2.json")]


def test_several_tables_tell_how_many_layers_flip(tables):
    told = json.loads(CliRunner().invoke(solve, [*tables, "--json"]).stdout)
    assert [(row["tables"], row["flips"]) for row in told["pairs"]] == [
        (["s0.json", "s1.json"], 2),
        (["s0.json", "s2.json"], 0),
        (["s1.json", "s2.json"], 2),
    ]
    assert told["most_flips"] == 2
    assert told["pairs"][1]["rank_correlation"] == pytest.approx(1)


def test_several_tables_in_words_name_the_layers_that_flip(tables):
    result = CliRunner().invoke(solve, tables)
    assert result.exit_code == 0
    assert "a      w4 a4    w2 a2    w4 a4" in result.stdout.splitlines()
    assert "mean 1.3, most 2 of 2 layers flip" in result.stdout


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--front", "3", "--ranges"], "solve: --ranges is of one budget, --front of many"),
        (["--plot", "x.svg"], "solve: --plot draws what --front solves"),
        (["--front", "3", "--plot", "x.nothing"], "x.nothing: cannot be written"),
    ],
)
def test_options_that_make_no_sense_together_are_exit_2(run, options, line):
    result = run(PROBLEM, *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith(f"error: {line}")


def test_a_front_over_no_cost_is_exit_2(run):
    result = run(PROBLEM | {"budgets": {}}, "--front", "3")
    assert (result.exit_code, result.stderr.startswith("error: budgets: no cost to draw a front over")) == (2, True)


def test_tables_that_ask_something_else_are_exit_2(tables, tmp_path):
    (tmp_path / "s1.json").write_text(json.dumps(PROBLEM | {"budgets": {"bitops": 9}}))
    result = CliRunner().invoke(solve, tables)
    assert (result.exit_code, "s1.json: its budgets or groups differ from s0.json" in result.stderr) == (2, True)
    again = CliRunner().invoke(solve, [tables[0], tables[0]])
    assert (again.exit_code, "a file is named twice" in again.stderr) == (2, True)


def harms(**of):
    """Weight and activation harm of 2 bits by layer; of 4 bits 0."""
    return {name: {kind: {"2": harm, "4": 0.0} for kind in ("weight", "activation")} for name, harm in of.items()}


def test_indicators_of_several_seeds_judge_one_problem(run, tmp_path):
    options = []
    for name, found in {"s0.json": harms(a=5.0, b=1.0), "s1.json": {"layers": harms(a=1.0, b=5.0)}}.items():
        (tmp_path / name).write_text(json.dumps(found))
        options += ["--indicators", str(tmp_path / name)]
    told = json.loads(run(PROBLEM, *options, "--json").stdout)
    assert told["pairs"][0]["flips"] == 2
    assert told["answers"]["s0.json"]["policy"]["a"] == {"weight_bits": 4, "activation_bits": 4}
    one = json.loads(run(PROBLEM, *options[2:], "--json").stdout)
    assert (one["policy"]["b"], one["objective"]) == ({"weight_bits": 4, "activation_bits": 4}, 2.0)


def test_indicators_without_some_harms_are_exit_2_with_every_place(run, tmp_path):
    found = harms(a=5.0)
    found["a"]["weight"]["2"] = -1
    (tmp_path / "s.json").write_text(json.dumps(found))
    result = run(PROBLEM, "--indicators", str(tmp_path / "s.json"))
    assert result.exit_code == 2
    lines = result.stderr.splitlines()
    assert len(lines) == 1 + 4
    assert lines[0] == "error: s.json: a.weight.2: expected a number from 0 to 1e300, got -1"
