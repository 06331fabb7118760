"""Effect `registration`: one registered model per (experiment, budget), one version per deployable. Idempotent."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mixbit.errors import MisuseError, MixbitError
from tasks import tracking_rest as rest
from tasks.record import Record
from tasks.tracking_rest import TrackingRefused
from tasks.tracking_runs import get_run

PACKED = "packed.onnx"
CANDIDATE, CHAMPION = "candidate", "champion"
REFERENCE = re.compile(r"models:/(?P<name>[^/@:]+)(/(?P<version>\d+)|@(?P<alias>[^/@:]+))")


@dataclass(frozen=True)
class Version:
    """One version of a registered model."""

    name: str
    version: int
    run_id: str
    tags: Mapping[str, str]

    def __str__(self) -> str:
        return f"models:/{self.name}/{self.version}"


def register(
    url: str,
    experiment: str,
    budget: str,
    records: Mapping[str, Record],
    context: Mapping[str, str],
    *,
    follow: bool = True,
) -> Version:
    """Make sure that the deployable is registered, once, and point the aliases at it.

    The alias `candidate` follows the latest run. `champion` is set for the first version only; later ones become it
    by promotion.

    Args:
        url: the tracking server.
        experiment: its name.
        budget: its name.
        records: stage -> record; `deployable` is needed, `dataset`, `indicators` and `policy` are noted where given.
        context: further tags (git.commit, git.dirty, dataset.md5, prefect.flow_run_id).
        follow: whether the aliases follow this run; a sweep decides once all its cells have ended.

    Raises:
        TrackingUnavailable: no answer; the next run does what is left.
    """
    name, deployable = model_name(experiment, budget), records["deployable"]
    assert deployable.run_id is not None
    tags = _tags(experiment, budget, records) | {key: value for key, value in context.items() if value}
    _ensure_model(url, name, {"mixbit.experiment": experiment, "mixbit.budget": budget})
    version = _find(url, name, tags["onnx.sha256"]) or _create(url, name, deployable.run_id, tags)
    for key in sorted(key for key in tags if _is_wrong(version, key, tags[key])):
        body = {"name": name, "version": str(version.version), "key": key, "value": tags[key]}
        rest.post(url, "model-versions/set-tag", body)
    if follow:
        _point_aliases(url, name, version.version)
    return version


def point(url: str, reference: str, alias: str) -> None:
    """Let an alias name a version, `models:/NAME/VERSION`.

    Raises:
        MixbitError: the server knows no such version.
    """
    version = find_version(url, reference)
    body = {"name": version.name, "alias": alias, "version": str(version.version)}
    rest.post(url, "registered-models/alias", body)


def model_name(experiment: str, budget: str) -> str:
    """The registered model of a budget."""
    return f"{experiment}-{budget}"


def find_version(url: str, reference: str) -> Version:
    """The version that `models:/name/3` or `models:/name@alias` names.

    Raises:
        MisuseError: the reference is not one.
        MixbitError: the server knows no such version; the message lists what it knows.
    """
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise MisuseError(reference, "", expected="models:/NAME/VERSION or models:/NAME@ALIAS")
    name, number, alias = match["name"], match["version"], match["alias"]
    endpoint, query = (
        ("model-versions/get", {"version": number}) if number else ("registered-models/alias", {"alias": alias})
    )
    try:
        return _version(rest.get(url, endpoint, {"name": name, **query})["model_version"])
    except TrackingRefused as error:
        if error.code not in {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}:
            raise
    known = _known(url, name)
    raise MixbitError(reference, "no such registered model", hint=f"The server knows {known or 'none yet'}")


def versions_of_file(url: str, sha256: str) -> list[tuple[Version, list[str]]]:
    """Versions with this packed file, each with its aliases."""
    found = map(_version, _search(url, "model-versions/search", f"tags.`onnx.sha256` = '{sha256}'", "model_versions"))
    return [(one, _aliases_of(url, one)) for one in sorted(found, key=lambda one: (one.name, one.version))]


def aliased(url: str) -> list[Version]:
    """Every version that an alias of any registered model points at.

    Raises:
        TrackingUnavailable: no answer.
    """
    found: dict[tuple[str, int], Version] = {}
    token = ""
    while True:
        query = {"max_results": str(rest.PAGE)} | ({"page_token": token} if token else {})
        answer = rest.get(url, "registered-models/search", query)
        for model in answer.get("registered_models", []):
            for alias in _model(url, model["name"]).get("aliases", []):
                version = find_version(url, f"models:/{model['name']}/{alias['version']}")
                found[version.name, version.version] = version
        token = answer.get("next_page_token", "")
        if not token:
            return list(found.values())


def _is_wrong(version: Version, key: str, value: str) -> bool:
    """Digests follow from the file and are put right; who made it first (commit, flow run, key) stays as it was."""
    return key not in version.tags or (key.endswith(".sha256") and version.tags[key] != value)


def _aliases_of(url: str, version: Version) -> list[str]:
    aliases = _model(url, version.name).get("aliases", [])
    return sorted(one["alias"] for one in aliases if int(one["version"]) == version.version)


def _tags(experiment: str, budget: str, records: Mapping[str, Record]) -> dict[str, str]:
    deployable, tuned = records["deployable"], records.get("finetuned_model")
    tags = {"mixbit.experiment": experiment, "mixbit.budget": budget, "mixbit.key": deployable.key}
    tags["onnx.sha256"] = deployable.outputs[PACKED].sha256
    if tuned is not None and "val_metric" in tuned.figures:
        tags["mixbit.val_metric"] = repr(tuned.figures["val_metric"])
    noted = (
        ("policy.sha256", "measured_policy" if "measured_policy" in records else "policy", "policy.json"),
        ("dataset.sha256", "dataset", "dataset.safetensors"),
        ("indicators.sha256", "indicators", "indicators.json"),
    )
    return tags | {tag: records[stage].outputs[file].sha256 for tag, stage, file in noted if stage in records}


def _ensure_model(url: str, name: str, tags: Mapping[str, str]) -> None:
    try:
        rest.post(url, "registered-models/create", {"name": name, "tags": rest.items(tags)})
    except TrackingRefused as error:
        if error.code != "RESOURCE_ALREADY_EXISTS":
            raise


def _find(url: str, name: str, sha256: str) -> Version | None:
    """The first version with this file."""
    condition = f"name = '{name}' and tags.`onnx.sha256` = '{sha256}'"
    found = [_version(one) for one in _search(url, "model-versions/search", condition, "model_versions")]
    return min(found, key=lambda one: one.version, default=None)


def _create(url: str, name: str, run_id: str, tags: Mapping[str, str]) -> Version:
    source = f"{get_run(url, run_id).artifacts}/{PACKED}"
    body = {"name": name, "source": source, "run_id": run_id, "tags": rest.items(tags)}
    return _version(rest.post(url, "model-versions/create", body, repeatable=False)["model_version"])


def _point_aliases(url: str, name: str, version: int) -> None:
    aliases = {one["alias"]: int(one["version"]) for one in _model(url, name).get("aliases", [])}
    wanted = {CANDIDATE: version} | ({} if CHAMPION in aliases else {CHAMPION: version})
    for alias, number in wanted.items():
        if aliases.get(alias) != number:
            rest.post(url, "registered-models/alias", {"name": name, "alias": alias, "version": str(number)})


def _known(url: str, name: str) -> str:
    """Names like this one, or the versions of this very one."""
    names = [one["name"] for one in _search(url, "registered-models/search", "", "registered_models")]
    if name not in names:
        return ", ".join(names)
    found = [
        _version(one).version for one in _search(url, "model-versions/search", f"name = '{name}'", "model_versions")
    ]
    aliases = [f"@{one['alias']}" for one in _model(url, name).get("aliases", [])]
    return f"{name}: " + ", ".join([*map(str, sorted(found)), *sorted(aliases)])


def _model(url: str, name: str) -> dict[str, Any]:
    return dict(rest.get(url, "registered-models/get", {"name": name})["registered_model"])


def _search(url: str, endpoint: str, condition: str, listed: str) -> list[dict[str, Any]]:
    query = {"max_results": str(rest.PAGE)} | ({"filter": condition} if condition else {})
    return list(rest.get(url, endpoint, query).get(listed, []))


def _version(found: Mapping[str, Any]) -> Version:
    return Version(found["name"], int(found["version"]), found.get("run_id", ""), rest.mapping(found.get("tags", [])))
