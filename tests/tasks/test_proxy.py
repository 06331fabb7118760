"""Stage `proxy`."""

import hashlib
import json

import pytest
from pydantic import ValidationError

from mixbit.data.arrays import dump
from mixbit.data.digits import digits
from mixbit.data.info import describe
from mixbit.errors import MixbitError
from mixbit.policy import canonical_json
from tasks import proxy
from tasks.stage import Work

INLINE = {"method": "herding", "fraction": 0.5, "seed": 0}


@pytest.fixture
def work(tmp_path):
    content = dump(digits(0))
    (tmp_path / "dataset").write_bytes(content)
    (tmp_path / "info").write_bytes(canonical_json(describe(digits(0), source="digits", md5=None)))
    (tmp_path / "out").mkdir()
    inputs = {name: tmp_path / name for name in ("dataset", "info", "manifest")}
    digests = {"dataset": hashlib.sha256(content).hexdigest()}
    return Work(inputs, digests, tmp_path / "out", tmp_path, lambda *_: None, tmp_path, ())


def test_an_inline_proxy_is_chosen(work):
    figures = proxy.compute(work, proxy.Params(**INLINE))
    said = json.loads((work.out / "proxy.json").read_bytes())
    assert figures == {"count": 540.0, "fraction": 540 / 1079}
    assert said["dataset_sha256"] == work.digests["dataset"]
    assert len(said["indices"]) == said["count"] == 540


def test_a_manifest_of_this_dataset_comes_out_as_it_went_in(work):
    proxy.compute(work, proxy.Params(**INLINE))
    made = (work.out / "proxy.json").read_bytes()
    work.inputs["manifest"].write_bytes(json.dumps(json.loads(made), indent=1).encode())
    assert proxy.compute(work, proxy.Params(name="half"))["count"] == 540.0
    assert (work.out / "proxy.json").read_bytes() == made


def test_a_manifest_without_a_class_is_refused_by_name_with_a_fraction(work):
    y = digits(0).tensors["train_y"]
    indices = [index for index, label in enumerate(y.tolist()) if label != 7][:540]
    said = {"dataset_sha256": work.digests["dataset"], "count": 540, "indices": indices, **INLINE}
    work.inputs["manifest"].write_text(json.dumps(said))
    with pytest.raises(
        MixbitError, match=r"half: no picture of class 7, expected every class\. A fraction of 0\.\d+ would do"
    ):
        proxy.compute(work, proxy.Params(name="half"))


def test_a_proxy_too_small_for_every_class_is_refused(work):
    with pytest.raises(MixbitError, match=r"no picture of class .*A fraction of 0\.\d+ would do"):
        proxy.compute(work, proxy.Params(method="k_centre", fraction=0.005, seed=0))


def test_half_a_description_is_refused():
    with pytest.raises(ValidationError, match="expected method, fraction and seed"):
        proxy.Params(method="herding")
