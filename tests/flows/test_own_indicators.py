"""A table and a method of the user's own, from an experiment file to a policy."""

import json

METHOD = """
from mixbit.config import Settings as Base

class Settings(Base):
    harm: float = 1.0

def compute_indicators(*, searched, num_bits, settings, **given):
    row = {str(bits): settings.harm / bits for bits in num_bits}
    return {"layers": {name: {"weight": row, "activation": row} for name in searched}}, {}
"""
SETTINGS = "  settings: {epochs: 1, batch_size: 16}\n"


def test_a_table_runs_without_asking_a_method_and_a_change_of_it_searches_anew(again):
    row = {"2": 0.5, "4": 0.25, "8": 0}
    table = {name: {"weight": row, "activation": row} for name in ("3", "6")}
    (again.folder / "table.json").write_text(json.dumps(table))
    again.edit(SETTINGS, "  file: table.json\n")
    assert "indicators" in again.computed()
    content = json.loads((again.state / "latest/tiny/indicators.json").read_bytes())
    assert set(content["inputs"]) == {"layers", "file"}
    assert again.computed() == []
    table["3"]["weight"] = {"2": 5.0, "4": 0.25, "8": 0}
    (again.folder / "table.json").write_text(json.dumps(table))
    assert "indicators" in again.computed()


def test_a_method_of_the_users_runs_and_its_file_counts_in_the_key(again):
    (again.folder / "ownharm.py").write_text(METHOD)
    again.edit(SETTINGS, "  method: ownharm:compute_indicators\n  settings: {harm: 2.0}\n")
    again.run()
    assert again.computed() == []
    (again.folder / "ownharm.py").write_text(METHOD.replace("harm / bits", "harm / bits**2"))
    assert "indicators" in again.computed()
