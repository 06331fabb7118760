from torch import nn

from mixbit.models.graph import trace
from mixbit.models.neighbours import neighbours


class Net(nn.Module):
    """A layer whose output two layers read, and a sum of both that a third one reads."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 2, 1), nn.Conv2d(2, 4, 1), nn.Conv2d(2, 4, 1)
        self.head = nn.Linear(4, 3)

    def forward(self, x):
        x = self.a(x).relu()
        return self.head((self.b(x) + self.c(x)).relu().mean((2, 3)))


def test_readers_of_one_tensor_count_once_and_terms_of_a_sum_share():
    found = neighbours(trace(Net(), [1, 5, 5]))
    assert found == {("a", "b"): 50, ("b", "head"): 2, ("c", "head"): 2}


class Twice(nn.Module):
    """A layer that reads its own output."""

    def __init__(self):
        super().__init__()
        self.again, self.head = nn.Conv2d(2, 2, 1), nn.Conv2d(2, 1, 1)

    def forward(self, x):
        return self.head(self.again(self.again(x).relu()).relu())


def test_a_layer_is_no_neighbour_of_itself():
    assert neighbours(trace(Twice(), [2, 3, 3])) == {("again", "head"): 18}
