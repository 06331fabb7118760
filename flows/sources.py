"""What enters the picture from outside: files the user names, and what DVC makes."""

from pathlib import Path

from flows.declaration import Declared
from mixbit.experiment import Data, Proxy
from tasks import data as dvc_data
from tasks.data import Source
from tasks.memo import sha256_file
from tasks.place import ROOT
from tasks.stage import Artifact


class Stale(Exception):  # noqa: N818 - a state of the data, not a fault
    """DVC has to make this again before its digest is known."""

    def __init__(self, source: Source) -> None:
        self.name, self.target, self.reason = source.name, str(source.target), str(source.stale)
        super().__init__(self.reason)


def dataset_source(declared: Declared) -> Source:
    """The origin of the experiment's dataset."""
    return dvc_data.source_of(declared.experiment.data, ROOT, declared.base_folder)


def source(of: str | Data | Proxy, declared: Declared) -> Artifact | None:
    """The file or folder behind the experiment's dataset or proxy; None where code or a stage makes it.

    Raises:
        Stale: DVC has to make it again.
        MisuseError: no such name, file or folder.
    """
    if isinstance(of, Proxy):
        return None
    is_dataset = of is declared.experiment.data
    found = dataset_source(declared) if is_dataset else dvc_data.proxy_source(str(of), ROOT)
    if found.stale is not None:
        raise Stale(found)
    return Artifact(found.digest, "source", found.path) if found.digest is not None else None


def file_source(key: str, declared: Declared) -> Artifact | None:
    """The file at a key path of the experiment, such as `model.checkpoint`; None where it names none."""
    path: Path | None = declared.files.get(key)
    return Artifact(sha256_file(path), "source", path) if path is not None else None


def reproduced(stale: Stale) -> None:
    """Let DVC make it again.

    Raises:
        MixbitError: DVC or the stage's command failed.
    """
    dvc_data.reproduce(stale.target, ROOT)
