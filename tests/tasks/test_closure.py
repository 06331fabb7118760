import ast
import textwrap
from pathlib import Path

import pytest

from mixbit.errors import MisuseError, MixbitError
from tasks.closure import Snapshot, spelled, syntax_tree
from tasks.closure import closure as closure_of


@pytest.fixture(autouse=True)
def _own_memo(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXBIT_HOME", str(tmp_path / "state"))


def closure(names, search_path):
    return closure_of(names, search_path, Snapshot())


def write(folder: Path, **files: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))


def test_a_helper_two_imports_away_is_part_of_the_closure(tmp_path):
    write(
        tmp_path, net="import block", block="def f():\n  from helper import g\n  return g()", helper="def g(): return 1"
    )
    before = closure(["net"], [tmp_path])
    write(tmp_path, helper="def g(): return 2")
    after = closure(["net"], [tmp_path])
    assert before.files["helper.py"]["g"] != after.files["helper.py"]["g"]


def test_comments_docstrings_and_formatting_do_not_count(tmp_path):
    write(tmp_path, net="def f(a, b):\n    return a + b\n")
    before = closure(["net"], [tmp_path])
    write(tmp_path, net='"""Doc."""\n# why\ndef f(a,  b):\n    """Add."""\n    return (a +\n      b)\n')
    assert closure(["net"], [tmp_path]) == before


def test_only_the_edited_function_changes_its_digest(tmp_path):
    write(tmp_path, net="def f(): return 1\ndef g(): return 2\nclass C:\n  x = 1\n  def m(self): return 3\n")
    before = closure(["net"], [tmp_path]).files["net.py"]
    write(tmp_path, net="def f(): return 1\ndef g(): return 2\nclass C:\n  x = 1\n  def m(self): return 4\n")
    after = closure(["net"], [tmp_path]).files["net.py"]
    assert [name for name in before if before[name] != after[name]] == ["C.m"]


def test_an_installed_package_counts_by_its_version(tmp_path):
    write(tmp_path, net="import numpy as np\n")
    assert set(closure(["net"], [tmp_path]).packages) == {"numpy"}


def test_a_package_installed_in_place_counts_by_its_code(tmp_path, monkeypatch):
    package, info = tmp_path / "src" / "mynets", tmp_path / "site" / "mynets-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mynets\nVersion: 1\n")
    (info / "direct_url.json").write_text('{"url": "file:///x", "dir_info": {"editable": true}}')
    (tmp_path / "src").mkdir()
    write(package, __init__="", block="def f(): return 1")
    write(tmp_path / "user", net="from mynets import block")
    monkeypatch.syspath_prepend(tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "src")
    before = closure(["net"], [tmp_path / "user"])
    write(package, block="def f(): return 2")
    after = closure(["net"], [tmp_path / "user"])
    assert before.files["mynets/block.py"] != after.files["mynets/block.py"]
    assert before.packages == {}


def test_plumbing_is_in_no_closure():
    files = closure(["tasks.layers"], []).files
    assert not {"tasks/stage.py", "mixbit/errors.py", "mixbit/load.py", "mixbit/config.py"} & set(files)


def test_an_import_by_computed_name_cannot_be_hashed(tmp_path):
    write(tmp_path, net="import importlib\nx = importlib.import_module('ma' + 'th')\n")
    with pytest.raises(MixbitError, match=r"net\.py: line 3|net\.py: line 2: imports by a computed name"):
        closure(["net"], [tmp_path])


@pytest.mark.parametrize(
    "code",
    [
        "from importlib import import_module as get\nx = get('ma' + 'th')\n",
        "import importlib as i\nx = i.import_module('math')\n",
        "x = __import__('math')\n",
    ],
)
def test_no_spelling_of_an_import_by_name_escapes(tmp_path, code):
    write(tmp_path, net=code)
    with pytest.raises(MixbitError, match="imports by a computed name"):
        closure(["net"], [tmp_path])


def test_programs_that_a_stage_starts_by_name_are_part_of_its_closure():
    files = closure(["tasks.profile"], []).files
    assert {"mixbit/devices/measure.py", "mixbit/devices/memory.py", "mixbit/devices/parent.py"} <= set(files)


def test_a_later_python_that_adds_empty_fields_to_its_trees_finds_the_same_digests():
    function = ast.parse("def f(a, b=None): return a").body[0]
    before = spelled(function)
    assert before != spelled(ast.parse("def f(a, b=0): return a").body[0])
    function.type_params = []
    function._fields = (*function._fields, "type_params")
    assert spelled(function) == before


def test_code_that_does_not_parse_is_one_line(tmp_path):
    write(tmp_path, net="def f(:\n")
    with pytest.raises(MixbitError, match="does not parse"):
        closure(["net"], [tmp_path])


def test_a_module_that_is_nowhere_is_refused_by_name(tmp_path):
    with pytest.raises(MisuseError, match="no such module"):
        closure(["no_such_module_anywhere"], [tmp_path])


def test_moving_the_folder_changes_nothing(tmp_path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        write(folder, net="from block import f", block="def f(): return 1")
    assert closure(["net"], [tmp_path / "a"]) == closure(["net"], [tmp_path / "b"])


def test_a_run_keys_the_code_it_read_first_and_knows_what_was_edited_since(tmp_path):
    write(tmp_path, net="def f(): return 1")
    snapshot = Snapshot()
    before = closure_of(["net"], [tmp_path], snapshot)
    write(tmp_path, net="def f(): return 2")
    assert closure_of(["net"], [tmp_path], snapshot) == before
    assert snapshot.edited() == ["net.py"]


def test_a_thread_that_parses_at_the_same_moment_does_not_matter(monkeypatch):
    failures = [SystemError("AST constructor recursion depth mismatch (before=99, after=75)")] * 2
    parse = ast.parse
    monkeypatch.setattr(ast, "parse", lambda content: parse(content) if not failures else _raise(failures.pop()))
    assert ast.unparse(syntax_tree(b"x = 1")) == "x = 1"


def _raise(error):
    raise error
