"""`mixbit cache`, `gc`, `adopt` and `verify` after a real run."""

import json

import numpy as np

from tasks.store import Store


def latest(tiny, cell, file):
    return json.loads((tiny.state / "latest" / "tiny" / f"{cell}.json").read_bytes())["outputs"][file]["sha256"]


def test_after_a_first_run_everything_is_reached(ran):
    tiny, _ = ran
    assert tiny.mixbit("gc", "--apply").stdout == "nothing to delete: everything is reached\n"


def test_gc_deletes_nothing_under_a_run(ran):
    tiny, _ = ran
    with Store(tiny.state).in_use():
        done = tiny.mixbit("gc", "--apply")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "a run is under way, nothing was deleted" in done.stderr


def test_cache_counts_what_a_run_computed(ran):
    tiny, _ = ran
    told = json.loads(tiny.mixbit("cache", "--json").stdout)
    assert told["stages"]["float_model"]["computed"] == 1
    assert told["total"]["records"] == sum(one["records"] for one in told["stages"].values())


def test_cache_verify_finds_an_altered_blob_and_the_next_plan_makes_it_again(again):
    path = Store(again.state).blob(latest(again, "indicators", "indicators.json"))
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[::-1])
    done = again.mixbit("cache", "--verify")
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "1 altered and 0 lost" in done.stderr
    assert again.plan("--offline")["indicators"]["reason"] == "output altered: indicators.json"


def test_a_registered_file_is_made_again_to_the_byte_from_source_data_alone(ran):
    tiny, _ = ran
    done = tiny.mixbit("verify", latest(tiny, "deployable@w4a4", "packed.onnx"), "--file", tiny.file)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "8 identical"


def test_of_two_data_sets_with_one_policy_verify_takes_the_runs_of_its_own(again):
    policy, indicators = latest(again, "policy@w4a4", "policy.json"), latest(again, "indicators", "indicators.json")
    arrays = dict(np.load(again.folder / "shapes.npz"))
    arrays["train_x"][1, 0, 0, 0] ^= 1
    np.savez(again.folder / "shapes.npz", **arrays)
    again.run()
    assert latest(again, "policy@w4a4", "policy.json") == policy
    assert latest(again, "indicators", "indicators.json") != indicators
    done = again.mixbit("verify", latest(again, "deployable@w4a4", "packed.onnx"), "--file", again.file)
    assert done.stdout.splitlines()[-1] == "8 identical", done.stdout


def test_verify_names_the_code_that_changed_since(again):
    network = again.folder / "tinynet.py"
    layers = latest(again, "layers", "layers.json")
    network.write_text(network.read_text().replace("range(2)", "range(3)"))
    done = again.mixbit("verify", layers, "--file", again.file)
    assert done.returncode == 1
    assert "layers.json" in done.stdout
    assert "tinynet.py: net changed" in done.stdout


def test_verify_says_which_source_is_missing(again):
    layers = latest(again, "layers", "layers.json")
    data = (again.folder / "shapes.npz").read_bytes()
    (again.folder / "shapes.npz").write_bytes(data + b"\0")
    found = json.loads(again.mixbit("verify", layers, "--file", again.file, "--json").stdout)
    assert [one["state"] for one in found["stages"]] == ["impossible", "identical"]
    assert "dataset: input source: no file here has sha256" in found["stages"][0]["why"]


def test_a_refactored_network_is_adopted_after_a_check(again):
    network = again.folder / "tinynet.py"
    network.write_text(network.read_text().replace("for _ in", "for number in"))
    done = again.mixbit("adopt", "float_model", "--reason", "a name", "--check", again.file)
    assert done.stdout == "float_model: adopted\n", done.stderr
    plan = again.plan()
    assert (plan["float_model"]["state"], plan["float_model"]["reason"]) == ("pending", "adopted: a name")
    assert plan["indicators"]["state"] == "will run"


def test_a_change_of_more_than_code_is_not_adopted(again):
    again.edit("num_bits: [2, 4, 8]", "num_bits: [2, 4]")
    done = again.mixbit("adopt", "indicators", "--reason", "why not", again.file)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "not only code differs: params.num_bits" in done.stderr


def test_each_command_shows_an_example(ran):
    tiny, _ = ran
    for command in ("gc", "cache", "verify", "adopt"):
        assert "Example: mixbit" in tiny.mixbit(command, "--help").stdout
