"""The contract of an operator: one object in its `__init__.py`, and all that the pipeline knows about it.

An operator is a folder with an `OPERATOR` in its `__init__.py`, a float64 oracle in `reference.py`, and any number of
backends: every `<name>_impl.py` is one (see `Backend`). Nothing here knows what an operator computes.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from analysis.cli import BadInput
from kernels.draw import normal

Arrays = dict[str, Any]
"""Named arrays: NumPy, torch or CuPy, whichever the backend takes."""
Block = dict[str, int]
"""A block configuration: axis name to value, `num_warps` and `num_stages` among them where a backend has them."""


@dataclass(frozen=True)
class Problem:
    """Base of an operator's problem: sizes, dtype and modes as typed fields with defaults.

    Subclasses are frozen dataclasses with fields of type int, float, str or Literal[...]; they check relations between
    fields in `__post_init__` and raise BadInput. Every operator's problem has a `dtype`.
    """

    dtype: Literal["float32", "float16", "bfloat16"] = "float32"

    @classmethod
    def parse(cls, fields: Mapping[str, Any], where: str) -> Problem:
        """The problem that `fields` describe; `where` (a file and key) begins the message of a BadInput."""
        hints = _hints(typing.cast(Any, cls))  # a class is hashable whatever its instances are
        for name, value in fields.items():
            if name not in hints:
                raise BadInput(f"{where}.{name}: unknown field; one of {', '.join(sorted(hints))}")
            choices = typing.get_args(hints[name])
            if choices and value not in choices:
                raise BadInput(f"{where}.{name}: {value!r} is not one of {', '.join(map(repr, choices))}")
            if not choices and (type(value) is not hints[name]):
                raise BadInput(f"{where}.{name}: {value!r} is not of type {hints[name].__name__}")
        try:
            return cls(**fields)
        except BadInput as error:
            raise BadInput(f"{where}: {error}") from None
        except TypeError:
            required = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in fields]
            raise BadInput(f"{where}: missing field {', '.join(required)}") from None

    @classmethod
    def grid(cls, entries: Iterable[Mapping[str, Any]], where: str) -> list[Problem]:
        """The problems of config `entries`, each a mapping in which a list of values stands for one problem a value."""
        problems = []
        for number, entry in enumerate(entries):
            names = list(entry)
            choices = [value if isinstance(value, list) else [value] for value in entry.values()]
            if not all(choices):
                raise BadInput(f"{where}[{number}].{names[choices.index([])]}: an empty list; give at least one value")
            for values in itertools.product(*choices):
                problems.append(cls.parse(dict(zip(names, values, strict=True)), f"{where}[{number}]"))
        return list(dict.fromkeys(problems))

    def fields(self) -> dict[str, Any]:
        """Field names and values, for records."""
        return {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.fields().items())


@functools.cache
def _hints(problem: Any) -> dict[str, Any]:
    """The types of a problem's fields: resolved once, for a config may have thousands of problems."""
    return typing.get_type_hints(problem)


def is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True)
class Space:
    """The block space of a backend: the values of each axis, a safe default, and which combinations are valid.

    `rule(problem, block)` gives the reason why a combination cannot work, or None. `powers_of_two` names the axes whose
    values must be powers of two (Triton's block shapes). A backend without block parameters has the empty space.
    """

    axes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    default: Mapping[str, int] = field(default_factory=dict)
    rule: Callable[[Any, Block], str | None] = lambda problem, block: None
    powers_of_two: frozenset[str] = frozenset()

    def narrowed(self, axes: Mapping[str, Any], where: str) -> Space:
        """This space with the values of some axes replaced by a config's; `where` begins the message of a BadInput."""
        for name, values in axes.items():
            if name not in self.axes:
                raise BadInput(f"{where}.{name}: unknown block axis; one of {', '.join(self.axes) or '(none)'}")
            if values == []:
                raise BadInput(f"{where}.{name}: an empty list; give at least one value")
            for value in values if isinstance(values, list) else [values]:
                if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                    raise BadInput(f"{where}.{name}: {value!r} is not a positive whole number")
                if name in self.powers_of_two and not is_power_of_two(value):
                    raise BadInput(f"{where}.{name}: {value} is not a power of two")
        given = {name: tuple(values) if isinstance(values, list) else (values,) for name, values in axes.items()}
        return dataclasses.replace(self, axes={**self.axes, **given})

    def objection(self, problem: Any, block: Mapping[str, Any]) -> str | None:
        """Why a block from outside (a tuned table, a caller) cannot be used for `problem`, or None."""
        if set(block) != set(self.axes):
            return f"axes {', '.join(block) or '(none)'}, not {', '.join(self.axes) or '(none)'}"
        for name, value in block.items():
            if type(value) is not int or value < 1:
                return f"{name} = {value!r} is not a positive whole number"
            if name in self.powers_of_two and not is_power_of_two(value):
                return f"{name} = {value} is not a power of two"
        return self.rule(problem, dict(block))

    def blocks(self, problem: Any) -> list[tuple[Block, str | None]]:
        """Every combination of the axes with the reason why it is invalid for `problem` (None: it is valid).

        The default is always among them: it is what gains are told against, and what is used where nothing was tuned.
        """
        combinations = [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*self.axes.values())]
        if dict(self.default) not in combinations:
            combinations.append(dict(self.default))
        return [(block, self.rule(problem, block)) for block in combinations]


@dataclass(frozen=True)
class Cost:
    """What a problem must do at least: bytes through memory (inputs read once, outputs written once) and operations.

    `rate` names the measured ceiling that bounds the operations: "fp32", "tf32", "fp16" or "bf16". `otherwise` has other ways to do the
    same, as (operations, rate): the quickest sets the limit.
    """

    bytes: int
    operations: int
    rate: str = "fp32"
    otherwise: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True)
class Memory:
    """Bytes that a problem needs at most, inputs and outputs included: on the host, and on the device."""

    host: int
    device: int


@dataclass(frozen=True)
class Verdict:
    """The outcome of a comparison with the oracle: `error` is the largest deviation in units of the tolerance (≤ 1 passes)."""

    ok: bool
    error: float
    message: str = ""


@dataclass(frozen=True)
class Signature:
    """A way to call a function from outside: recognised by its parameters' names, called by `call(function, problem, inputs)`.

    `call` gets NumPy inputs and returns the operator's outputs; `accepts` says why a problem cannot be asked of it, or None.
    """

    parameters: tuple[str, ...]
    call: Callable[[Callable[..., Any], Any, Arrays], Arrays]
    accepts: Callable[[Any], str | None] = lambda problem: None


@dataclass(frozen=True)
class Peer:
    """Somebody else's implementation: `call(problem, torch inputs) -> outputs`, on the `devices` "cpu" and "cuda".

    `call` imports its library when it is called, so that one that is not installed is recorded as that, and raises
    BadInput for a problem that the library does not offer.
    """

    call: Callable[[Any, Arrays], Arrays]
    devices: tuple[str, ...] = ("cpu", "cuda")


def as_bfloat16(values: np.ndarray) -> np.ndarray:
    """float32 `values` without what bfloat16 does not hold, so that an oracle is given what the backends are."""
    return (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def standard_normal(shapes: Mapping[str, tuple[tuple[int, ...], str]], rng: np.random.Generator) -> Arrays:
    """Random inputs from N(0, 1), never zeros, of the given shapes and dtypes ("bfloat16" is drawn as float32)."""

    def draw(shape: tuple[int, ...], dtype: str) -> np.ndarray:
        values = normal(rng, shape)
        return values if dtype == "bfloat16" else values.astype(dtype, copy=False)

    return {name: draw(shape, dtype) for name, (shape, dtype) in shapes.items()}


@dataclass(frozen=True)
class Operator:
    """One operator. All callables take the operator's own Problem.

    name:       the folder's name, whatever is given here
    summary:    one sentence for tables
    problem:    the Problem subclass
    shapes:     problem -> {input name: (shape, dtype)}: enough to compile without making data
    oracle:     (problem, float32-or-wider NumPy inputs) -> outputs in float64, by the definition
    compare:    (problem, inputs, outputs of a backend as NumPy, oracle's outputs) -> Verdict
    cost:       problem -> Cost, hence the hardware's limit
    memory:     problem -> Memory
    awkward:    problems that are awkward on purpose (tails, primes, ones, k > N), small enough for an interpreter
    inputs:     (problem, rng) -> NumPy inputs; standard normal by `shapes` unless given
    signatures: how functions from outside may be called (see `--impl`)
    peers:      name -> Peer: somebody else's implementation, measured beside ours
    part:       (problem, inputs, outputs) -> the same for a part that the oracle computes in seconds, chosen by the problem and
                inputs alone; None: the whole is checked
    folder:     where the backends are; set by the registry
    """

    name: str
    summary: str
    problem: type[Problem]
    shapes: Callable[[Any], dict[str, tuple[tuple[int, ...], str]]]
    oracle: Callable[[Any, Arrays], Arrays]
    compare: Callable[[Any, Arrays, Arrays, Arrays], Verdict]
    cost: Callable[[Any], Cost]
    memory: Callable[[Any], Memory]
    awkward: Sequence[Problem]
    inputs: Callable[[Any, np.random.Generator], Arrays] | None = None
    signatures: Sequence[Signature] = ()
    peers: Mapping[str, Peer] = field(default_factory=dict)
    part: Callable[[Any, Arrays, Arrays], tuple[Any, Arrays, Arrays]] | None = None
    folder: str = ""

    def make_inputs(self, problem: Problem, seed: int) -> Arrays:
        """The NumPy inputs that `problem` and `seed` give, the same on every machine."""
        rng = np.random.default_rng(seed)
        return self.inputs(problem, rng) if self.inputs else standard_normal(self.shapes(problem), rng)


@dataclass(frozen=True)
class Backend:
    """A way to compute an operator: what the module `<name>_impl.py` declares.

    name:    the file's name without `_impl.py`
    arrays:  ARRAYS: "numpy", "torch" or "cupy", the arrays that `run` takes and gives
    devices: DEVICES: a tuple out of "cpu" and "cuda"
    space:   SPACE: its block space
    run:     run(problem, inputs, block) -> outputs; allocates its outputs, never synchronises with the host
    module:  the module itself, for its source's digest and, for CuPy, `sources(problem, block)` (see `kernels.cuda`)
    """

    name: str
    arrays: str
    devices: tuple[str, ...]
    space: Space
    run: Callable[[Any, Arrays, Block], Arrays]
    module: types.ModuleType
