"""Stage `dataset`."""

import json

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from mixbit.data.arrays import KEYS, dump
from mixbit.data.digits import digits
from mixbit.errors import ConfigError
from tasks import dataset
from tasks.stage import Work

X, Y = np.arange(4 * 9, dtype=np.uint8).reshape(4, 1, 3, 3), np.array([0, 1, 0, 1])


def work(tmp_path, **inputs):
    folders = [tmp_path / name for name in ("out", "checkpoint")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    return Work(inputs, {}, *folders, lambda *_: None, tmp_path, (tmp_path,))


def run(tmp_path, params, **inputs):
    given = work(tmp_path, **inputs)
    figures = dataset.compute(given, dataset.Params(**params))
    return figures, {name: (given.out / name).read_bytes() for name in dataset.OUTPUTS}


def npz(path, **changes):
    np.savez(path, **{**{key: X if key.endswith("x") else Y for key in KEYS}, **changes})
    return path.with_suffix(".npz")


def test_a_dataset_that_dvc_made_comes_out_as_it_went_in(tmp_path):
    (tmp_path / "source").write_bytes(dump(digits(0)))
    params = {"kind": "safetensors", "name": "digits", "md5": "ab"}
    figures, made = run(tmp_path, params, source=tmp_path / "source")
    assert made["dataset.safetensors"] == (tmp_path / "source").read_bytes()
    assert figures == {"train": 1079.0, "val": 359.0, "test": 359.0}
    info = json.loads(made["dataset_info.json"])
    assert (info["md5"], info["source"], info["num_classes"]) == ("ab", "digits", 10)


def test_the_same_content_gives_the_same_bytes_whatever_it_came_in(tmp_path):
    first = run(tmp_path, {"kind": "npz", "name": "mine"}, source=npz(tmp_path / "a.npz"))
    wide = {f"{split}_y": Y.astype(np.int16) for split in ("train", "val", "test")}
    assert run(tmp_path, {"kind": "npz", "name": "mine"}, source=npz(tmp_path / "b.npz", **wide)) == first


def test_a_folder_of_pictures_is_read(tmp_path):
    for split in ("train", "val", "test"):
        for number, name in enumerate(("ant", "zebra")):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            Image.new("L", (5, 5), number).save(tmp_path / "pets" / split / name / "1.png")
    params = {"kind": "folder", "name": "pets", "image_size": 4}
    _, made = run(tmp_path, params, source=tmp_path / "pets")
    info = json.loads(made["dataset_info.json"])
    assert (info["labels"], info["input_shape"], info["mean"]) == (["ant", "zebra"], [1, 4, 4], [0.5])


def test_a_callable_needs_no_source(tmp_path):
    lines = ["import numpy as np", "def make(n):", "    x, y = np.zeros((n, 1, 2, 2), np.float32), np.arange(n) % 2"]
    lines += ["    return {f'{s}_{p}': {'x': x, 'y': y}[p] for s in ('train', 'val', 'test') for p in 'xy'}"]
    (tmp_path / "dataset_stage_source.py").write_text("\n".join(lines))
    reference = "dataset_stage_source:make"
    params = {"kind": "callable", "name": reference, "reference": reference, "arguments": {"n": 6}}
    assert run(tmp_path, params)[0] == {"train": 6.0, "val": 6.0, "test": 6.0}
    assert dataset.modules(dataset.Params(**params)) == ("dataset_stage_source",)
    assert load_file(tmp_path / "out" / "dataset.safetensors")["train_x"].dtype == np.float32


def test_faults_of_the_data_come_all_at_once_and_nothing_is_written(tmp_path):
    source = npz(tmp_path / "a.npz", val_y=Y + 7, test_x=X[:0], test_y=Y[:0])
    with pytest.raises(ConfigError) as caught:
        run(tmp_path, {"kind": "npz", "name": "mine.npz"}, source=source)
    assert str(caught.value).startswith("mine.npz: test_x: empty split")
    assert list((tmp_path / "out").iterdir()) == []
