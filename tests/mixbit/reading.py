"""A YAML file as an instance of a model, by the two steps that every reader of a file takes."""

from mixbit.config import in_order, validate
from mixbit.errors import ConfigError
from mixbit.marked_yaml import read_marked


def parse(path, model):
    data, marks, faults = read_marked(path)
    instance, more = validate(data, model, marks)
    if instance is None or faults:
        raise ConfigError(in_order([*faults, *more]))
    return instance
