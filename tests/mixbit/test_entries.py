import pytest

from mixbit import entries
from mixbit.errors import MisuseError
from mixbit.experiment import LayerRule

NET = {
    "layers": [{"name": name, "never_run": False} for name in ("conv", "middle", "fc")],
    "shared_activations": [],
    "first": "conv",
    "last": "fc",
}
GHOST = NET | {"layers": [*NET["layers"], {"name": "ghost", "never_run": True}]}


def test_limpq_fixes_first_and_last_to_8_bit_and_none_fixes_nothing():
    assert entries.fixed_entries(NET, "limpq", {}) == {"conv": (8, 8), "fc": (8, 8)}
    assert entries.fixed_entries(NET, "none", {}) == {}


def test_candidates_are_all_pairs_of_integers_and_float_with_float():
    found = entries.candidates(NET, [4, "float", 2], "limpq", {})
    assert found["middle"] == ((2, 2), (2, 4), (4, 2), (4, 4), ("float", "float"))
    assert found["conv"] == ((8, 8),)


def test_rules_narrow_and_exclude_by_pattern():
    rules = {"mid*": LayerRule(min_bits=3, max_bits=4), "fc": LayerRule(exclude=True)}
    found = entries.candidates(NET, [2, 3, 4, 6, "float"], "none", rules)
    assert found["middle"] == ((3, 3), (3, 4), (4, 3), (4, 4))
    assert found["fc"] == (("float", "float"),)


def test_a_pattern_without_a_layer_names_the_nearest():
    with pytest.raises(MisuseError, match=r"midle: matches no layer\. Did you mean middle"):
        entries.candidates(NET, [4], "none", {"midle": LayerRule(exclude=True)})


def test_rules_that_leave_nothing_are_an_error_of_that_layer():
    with pytest.raises(MisuseError, match="middle: its rules leave no candidate"):
        entries.candidates(NET, [4], "none", {"mid*": LayerRule(min_bits=5)})


def test_a_rule_against_the_profile_is_an_error():
    with pytest.raises(MisuseError, match="fc: fixed to 8 bits by the profile limpq"):
        entries.candidates(NET, [4], "limpq", {"fc": LayerRule(max_bits=4)})


def test_a_layer_beside_a_fixed_one_keeps_the_activation_bits_of_their_tensor():
    net = NET | {"shared_activations": [["conv", "middle"]]}
    assert entries.candidates(net, [2, 4], "limpq", {})["middle"] == ((2, 8), (4, 8))


def test_excluding_one_of_two_readers_of_a_tensor_is_an_error():
    net = NET | {"shared_activations": [["middle", "fc"]]}
    with pytest.raises(MisuseError, match="middle, fc read one tensor, and only some"):
        entries.candidates(net, [4], "none", {"fc": LayerRule(exclude=True)})


def test_layers_that_never_ran_take_no_part():
    assert "ghost" not in entries.candidates(GHOST, [4], "none", {})
    assert entries.searched_layers(GHOST, "none", {}) == ["conv", "middle", "fc"]


def test_fixed_and_excluded_layers_are_not_searched():
    assert entries.searched_layers(NET, "limpq", {}) == ["middle"]
    assert entries.searched_layers(NET, "none", entries.excluding(["*c*"])) == ["middle"]


def test_nothing_left_to_search_is_an_error_even_beside_a_layer_that_never_ran():
    with pytest.raises(MisuseError, match="no layer is left to search"):
        entries.searched_layers(GHOST, "limpq", entries.excluding(["mid*"]))


def test_a_group_with_an_unknown_layer_is_an_error():
    with pytest.raises(MisuseError, match=r"groups\[0\]: unknown layer, got convv. Did you mean conv"):
        entries.check_groups([["convv", "fc"]], NET)
