"""What the arguments of public functions refuse at the door: bad values by kind, and the check of one call."""

import inspect
import re
import traceback

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

MATRIX = np.random.default_rng(0).normal(size=(20, 4))


def _with(value):
    x = MATRIX.copy()
    x[3, 1] = value
    return x


NOTHING = {"None": None, "text": "nonsense", "object": object()}
NUMBERS = {
    **NOTHING,
    "NaN": float("nan"),
    "infinite": float("inf"),
    "list": [],
    "dict": {},
    "frame": pd.DataFrame(),
}
ARRAYS = {
    **NOTHING,
    "empty": [],
    "ragged": [[1.0, 2.0], [3.0]],
    "objects": MATRIX.astype(object),
    "strings": MATRIX.astype(str),
    "complex": MATRIX * 1j,
    "masked": np.ma.masked_array(MATRIX, MATRIX > 1),
    "sparse": sparse.csr_matrix(MATRIX),
    "sparse tensor": torch.from_numpy(MATRIX).to_sparse(),
    "NaN": _with(np.nan),
    "infinite": _with(-np.inf),
    "scalar": 3.0,
    "dict": {"a": [1.0]},
    "frame of strings": pd.DataFrame(MATRIX.astype(str)),
}
VECTOR = {
    name: np.ma.masked_array([1.0, 2.0], [False, True]) if name == "masked" else bad
    for name, bad in ARRAYS.items()
}
BAD = {
    "matrix": {**ARRAYS, "vector": MATRIX[0], "stack": MATRIX[None], "no rows": MATRIX[:0], "no columns": MATRIX[:, :0]},
    "other matrix": {**ARRAYS, "fewer rows": MATRIX[:-1]},
    "stack": {**ARRAYS, "matrix": MATRIX, "unequal rows": [MATRIX, MATRIX[:-1]], "frame": pd.DataFrame(MATRIX)},
    "vector": {**VECTOR, "NaN": [1.0, np.nan], "infinite": [1.0, np.inf], "strings": ["1", "2"]},
    "count": {**NUMBERS, "half": 1.5, "zero": 0, "negative": -1, "true": True},
    "counts": {**NUMBERS, "half": 1.5, "zero": [0], "negative": [-1], "NaN inside": [5, float("nan")]},
    "seed": {**NUMBERS, "half": 1.5, "negative": -1, "true": True},
    "share": {**NUMBERS, "zero": 0.0, "one": 1.0, "95": 95},
    "positive": {**NUMBERS, "zero": 0.0, "negative": -1.0},
    "number": {name: bad for name, bad in NUMBERS.items() if name != "infinite"},
    "finite": NUMBERS,
    "positive list": {**NUMBERS, "negative": [-1.0], "zero": [0.0], "NaN inside": [float("nan")], "texts": ["a"]},
    "choice": {**NUMBERS, "list": ["biased"]},
    "flag": {**NUMBERS, "one": 1},
    "groups": {"too few": [1, 2], "missing": [None] * 20, "text": "nonsense", "object": object(), "scalar": 3, "masked": np.ma.masked_array(range(20), True), "NaN": [float("nan")] * 20, "unhashable": [[1, 2]] * 20},
    "labels": {**NOTHING, "too few": [0, 1], "missing": [None] * 20, "one class": [1] * 20, "masked": np.ma.masked_array(range(20), True)},
    "texts": {**NOTHING, "empty": [], "blank": ["a b", "  "], "number": ["a b", 3], "missing": ["a b", None, float("nan")], "bytes": [b"a"], "scalar": 3, "surrogate": ["\ud800 x"], "table": np.array([["a", "b"]])},
    "layers": {"text": "nonsense", "object": object(), "empty": [], "too deep": [99], "too low": [-99], "half": [0.5], "NaN": [float("nan")]},
    "frame": {**NOTHING, "list": [1, 2], "empty": pd.DataFrame(), "array": MATRIX, "dict": {"score": [1]}},
    "other": NOTHING,
}  # fmt: skip


def functions(module):
    """Names of the public functions of a package; classes hold what these return."""
    return {name for name in module.__all__ if inspect.isroutine(getattr(module, name))}


def cases(table):
    """Name of the function, argument and bad value, for every argument of a table of doors."""
    for name, (_, _, kinds) in table.items():
        for argument, kind in kinds.items():
            for label in BAD[kind] if isinstance(kind, str) else kind:
                yield pytest.param(name, argument, label, id=f"{name}-{argument}-{label}")


def refuses(table, package, name, argument, label):
    """Assert that a bad value is refused by the package itself, in a sentence that says which argument."""
    call, good, kinds = table[name]
    kind = kinds[argument]
    bad = (BAD[kind] if isinstance(kind, str) else kind)[label]
    parameters = inspect.signature(call).parameters
    if bad is None and parameters[argument].default is None:
        return
    arguments = {**good(), argument: bad}
    last = next((n for n, p in parameters.items() if p.kind is inspect.Parameter.VAR_POSITIONAL), None)
    order = list(parameters)[: list(parameters).index(last) + 1] if last else []
    before = [arguments.pop(each) for each in order]
    with pytest.raises((ValueError, TypeError)) as raised:
        call(*before, **arguments)
    where = traceback.extract_tb(raised.tb)[-1].filename
    assert f"realign/{package}/" in where, f"refused by {where}: {raised.value!r}"
    said = str(raised.value)
    named = {"x": "X", "y": "Y", "source": "X", "target": "Y"}.get(argument, argument)
    words = [
        re.escape(named.removesuffix("s")),
        re.escape(label.split()[0]),
    ]  # a setting goes by its own name
    assert re.search(rf"\b({'|'.join(words)})", said), said
    assert len(said.split()) > 3
