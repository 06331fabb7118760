"""User code by `module:callable`, and what is refused before any of it runs."""

import sys

import pytest

from mixbit.errors import MisuseError, MixbitError
from mixbit.load import check_reference, load_callable, load_method, method_names


@pytest.fixture
def folder(tmp_path):
    before, modules = list(sys.path), set(sys.modules)
    yield tmp_path
    sys.path[:] = before
    for name in set(sys.modules) - modules:
        del sys.modules[name]


def refusal(reference, folder, kind=MisuseError):
    with pytest.raises(kind) as caught:
        load_callable(reference, [folder])
    return str(caught.value)


def test_a_callable_beside_the_experiment_is_found_and_may_import_its_neighbours_late(folder):
    (folder / "mine_a.py").write_text("def net():\n    import mine_b\n    return mine_b.value\n")
    (folder / "mine_b.py").write_text("value = 7\n")
    assert load_callable("mine_a:net", [folder])() == 7
    assert sys.path[0] != str(folder)


@pytest.mark.parametrize(
    "reference", ["os:system", "os.path:join", "builtins:eval", "subprocess:run", "posix:system", "__main__:main"]
)
def test_the_standard_library_is_refused(folder, reference):
    assert "the standard library makes no models" in refusal(reference, folder)


def test_the_standard_library_under_another_name_is_refused(folder):
    (folder / "mine_c.py").write_text("from os import system\n")
    assert "the standard library makes no models" in refusal("mine_c:system", folder)


@pytest.mark.parametrize("reference", ["", "net", "a:", ":b", "a:b:c", "a b:c", "a..b:c", "../a:b", "a:b()"])
def test_what_is_no_reference_is_refused(reference):
    with pytest.raises(MisuseError, match="not a reference"):
        check_reference(reference)


def test_a_missing_module_tells_where_it_was_looked_for(folder):
    assert f"no module mine_none. Looked in {folder}" in refusal("mine_none:net", folder)


def test_a_missing_dependency_of_user_code_is_told_apart(folder):
    (folder / "mine_d.py").write_text("import not_installed_xyz\n")
    assert "mine_d imports not_installed_xyz, which is not installed" in refusal("mine_d:net", folder)


def test_a_missing_name_suggests_a_near_one(folder):
    (folder / "mine_e.py").write_text("def resnet8(): ...\nsize = 3\n")
    assert "no resnet in module mine_e. Did you mean mine_e:resnet8?" in refusal("mine_e:resnet", folder)
    assert "expected a callable, got int" in refusal("mine_e:size", folder)


@pytest.mark.parametrize("body", ["1 / 0", "import sys; sys.exit(3)", "def broken(:"])
def test_code_that_fails_while_imported_is_one_line(folder, body):
    (folder / "mine_f.py").write_text(body)
    text = refusal("mine_f:net", folder, MixbitError)
    assert text.startswith("mine_f:net: importing mine_f failed")
    assert "\n" not in text


def test_methods_are_the_files_of_a_folder():
    assert set(method_names("mixbit")) >= {"config", "errors", "load"}
    assert load_method("mixbit", "errors").MixbitError is MixbitError
    with pytest.raises(MisuseError, match="unknown method"):
        load_method("mixbit", "nothing")
