"""YAML with a line for every key: the YAML 1.2 core words (`no` is text, `1e-3` a number), nothing that surprises.

PyYAML's scanner and composer do the reading; scalars are resolved here, so that `on`, `no` and `08` mean what they say.
"""

import difflib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from mixbit.errors import ConfigError, MisuseError, MixbitError

Location = tuple[str | int, ...]
MAX_FILE_BYTES = 1_000_000
MAX_DEPTH = 30
MAX_NODES = 20_000
SHOWN_CHARACTERS = 60

NULLS = dict.fromkeys(["", "~", "null", "Null", "NULL"])
CONSTANTS = {**NULLS, "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
NUMBER = re.compile(r"[-+]?(\.\d+|\d+(\.\d*)?)([eE][-+]?\d+)?")
INTEGER = re.compile(r"[-+]?(\d+|\d{1,3}(_\d{3})+)")
BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
NOT_FINITE = re.compile(r"([-+]?)\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


@dataclass(frozen=True)
class Marks:
    """Where every key and list item stands, and how it was written."""

    file: str
    lines: Mapping[Location, int]
    written: Mapping[Location, str]

    def line(self, location: Location) -> int:
        """Line of a location, or of the nearest place around it."""
        while location not in self.lines and location:
            location = location[:-1]
        return self.lines.get(location, 1)

    def fault(
        self,
        location: Location,
        what: str = "",
        *,
        expected: object = None,
        got: object = None,
        hint: str | None = None,
    ) -> MisuseError:
        """A fault at a location, as `file:line: key: …`."""
        place = f"{self.file}:{self.line(location)}"
        where = f"{place}: {key_path(location)}" if location else place
        return MisuseError(where, what, expected=expected, got=got, hint=hint)


def key_path(location: Location) -> str:
    """`indicators.num_bits[2]`; a key with dots of its own in quotes."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            plain = re.fullmatch(r"[\w-]+", part)
            text += (f".{part}" if text else part) if plain else f'["{shortened(part)}"]'
    return text


def shortened(text: str) -> str:
    """One line of at most SHOWN_CHARACTERS."""
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_CHARACTERS else f"{flat[: SHOWN_CHARACTERS - 1]}…"


def read_marked(path: Path) -> tuple[Any, Marks, list[MixbitError]]:
    """(the data, its marks, what is wrong but did not stop the reading: repeated keys, bad scalars).

    Raises:
        ConfigError: there is nothing to go on: no such file, not text, not YAML, or too big to be an experiment.
    """
    text = _text(path)
    file = str(path)
    try:
        _check_events(file, text)
        node = yaml.compose(text, yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        raise ConfigError([_syntax_fault(file, text, error)]) from None
    except yaml.YAMLError as error:
        what = str(error).split("\n")[0]
        raise ConfigError([MisuseError(file, f"not YAML: {what}", hint="Write it as plain UTF-8 text")]) from None
    if node is None:
        raise ConfigError([MisuseError(file, "", expected="a mapping (key: value)", got="an empty file")])
    reader = _Reader(file, text)
    data = reader.value(node, ())
    return data, Marks(file, reader.lines, reader.written), reader.faults


def _text(path: Path) -> str:
    if path.is_dir():
        raise ConfigError([MisuseError(str(path), "", expected="a YAML file", got="a folder", hint=_inside(path))])
    if not path.is_file():
        raise ConfigError([MisuseError(str(path), "no such file", hint=_near(path))])
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError([MisuseError(str(path), f"cannot be read: {error.strerror}")]) from None
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError([MisuseError(str(path), "too big", expected=f"at most {MAX_FILE_BYTES} bytes")])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        got = f"byte 0x{content[error.start]:02x} at offset {error.start}"
        fault = MisuseError(f"{path}:{line}", "not text", expected="UTF-8", got=got, hint="Is this the right file?")
        raise ConfigError([fault]) from None


def _inside(folder: Path) -> str:
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix in {".yaml", ".yml"})
    return f"In it: {', '.join(names[:8])}" if names else "There is no YAML file in it"


def _near(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"There is no folder {folder} either"
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix in {".yaml", ".yml"})
    near = difflib.get_close_matches(path.name, names, n=3, cutoff=0.5)
    near = near or [name for name in names if Path(name).stem == path.stem]
    if near:
        return f"Did you mean {' or '.join(str(folder / name) for name in near)}?"
    return f"In {folder}: {', '.join(names[:8])}" if names else f"There is no YAML file in {folder}"


def _check_events(file: str, text: str) -> None:
    """Refuse what would grow or nest without end before any tree of it is built."""
    depth = nodes = documents = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        nodes += isinstance(event, yaml.NodeEvent)
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        what = None
        if depth > MAX_DEPTH:
            what = f"nested deeper than {MAX_DEPTH} levels"
        elif nodes > MAX_NODES:
            what = f"more than {MAX_NODES} values"
        elif documents > 1:
            what = "a second document (---)"
        if what:
            where = f"{file}:{event.start_mark.line + 1}"
            raise ConfigError([MisuseError(where, what, expected="one experiment, as in experiments/digits.yaml")])


def _syntax_fault(file: str, text: str, error: yaml.MarkedYAMLError) -> MisuseError:
    mark = error.problem_mark or error.context_mark
    number = mark.line + 1 if mark else 1
    lines = text.splitlines()
    line = lines[number - 1] if number <= len(lines) else ""
    hint = "Indent with spaces, not tabs" if "\t" in line else "Check the indentation, the quotes and the colons there"
    problem = (error.problem or "").replace("'\\t'", "a tab")
    return MisuseError(f"{file}:{number}", f"not YAML: {problem}", got=repr(shortened(line)), hint=hint)


class _Reader:
    """Turns nodes into plain data while noting lines, spellings and faults."""

    def __init__(self, file: str, text: str) -> None:
        self.file, self.text = file, text
        self.lines: dict[Location, int] = {(): 1}
        self.written: dict[Location, str] = {}
        self.faults: list[MixbitError] = []
        self._open: list[yaml.Node] = []

    def value(self, node: yaml.Node, location: Location) -> Any:
        self.lines.setdefault(location, node.start_mark.line + 1)
        self.written[location] = self._spelling(node)
        if len(self.written) > MAX_NODES:
            fault = MisuseError(self.file, f"its aliases unfold to more than {MAX_NODES} values")
            raise ConfigError([fault])
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, location)
        if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.rsplit(":", 1)[1] not in {"map", "seq"}:
            self._fault(location, "a tag", expected="a plain value", got=node.tag)
            return None
        return self._collection(node, location)

    def _collection(self, node: yaml.Node, location: Location) -> Any:
        if any(node is parent for parent in self._open):
            raise ConfigError([self._marks().fault(location, "an alias that contains itself")])
        self._open.append(node)
        try:
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*location, index)) for index, item in enumerate(node.value)]
            return dict(self._items(node, location))
        finally:
            self._open.pop()

    def _items(self, node: yaml.Node, location: Location) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for key, value in node.value:
            line = key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode) or key.value == "<<":
                self._fault(
                    location,
                    "",
                    line=line,
                    expected="a word as key",
                    got=self._spelling(key),
                    hint="Merge keys are not read; write the keys out" if key.value == "<<" else None,
                )
                continue
            inner = (*location, key.value)
            if key.value in seen:
                self._fault(
                    inner, f"written twice, first in line {seen[key.value]}", line=line, hint="Keep one of them"
                )
                continue
            seen[key.value] = self.lines[inner] = line
            yield key.value, self.value(value, inner)

    def _scalar(self, node: yaml.ScalarNode, location: Location) -> Any:
        if "\0" in node.value or any("\ud800" <= letter <= "\udfff" for letter in node.value):
            self._fault(location, "", expected="printable text", got=repr(shortened(node.value)))
            return None
        tagged = re.match(r"(&\S+\s+)?!", self.text[node.start_mark.index :])
        if tagged:
            self._fault(location, "a tag", expected="a plain value", got=self._spelling(node), hint="Remove the tag")
            return None
        return _resolved(node.value) if node.style is None else node.value

    def _spelling(self, node: yaml.Node) -> str:
        """As in the file, on one line; what is long or has many lines is only counted."""
        source = self.text[node.start_mark.index : node.end_mark.index].strip()
        if isinstance(node, yaml.ScalarNode):
            return shortened(source) if source else "nothing"
        if "\n" in source or len(source) > SHOWN_CHARACTERS:
            return f"a {'list' if isinstance(node, yaml.SequenceNode) else 'mapping'} of {len(node.value)}"
        return source

    def _fault(self, location: Location, what: str, *, line: int | None = None, **words: Any) -> None:
        marks = self._marks() if line is None else Marks(self.file, {location: line}, {})
        self.faults.append(marks.fault(location, what, **words))

    def _marks(self) -> Marks:
        return Marks(self.file, self.lines, self.written)


def _resolved(word: str) -> Any:
    """The value of a plain scalar by the YAML 1.2 core schema; `1_000_000` is a number too."""
    if word in CONSTANTS:
        return CONSTANTS[word]
    based = BASED.fullmatch(word)
    if (based or INTEGER.fullmatch(word)) and len(word) <= SHOWN_CHARACTERS:
        return int(word, 0 if based else 10)
    if NUMBER.fullmatch(word):
        return float(word)
    if match := NOT_FINITE.fullmatch(word):
        return math.nan if match[3] else -math.inf if match[1] == "-" else math.inf
    return word
