"""CMA-ES over C's parameters (Hansen, 2016; the paper's section 2.4): ask for a population, tell its scores.

It wraps pycma, stores its state as arrays and plain values, so that loading a checkpoint runs no code, and makes its
randomness a pure function of (seed, generation).
"""

import warnings
from typing import Any, Literal

import numpy as np

from wm.errors import Failure
from wm.seeds import derive

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # about matplotlib, which only its plots need
    import cma


class Evolution:
    """The search distribution over theta."""

    def __init__(
        self,
        size: int,
        population: int,
        sigma0: float,
        covariance: Literal["full", "diagonal"],
        seed: int,
        mean: np.ndarray | None = None,
        axes: np.ndarray | None = None,
    ):
        """`axes` scales theta: step sizes (N,) per unit of sigma, powers of two, so that scaling does not round; or
        search directions (D, N) from the mean.
        """
        self.seed, self.generation, self.random = seed, 0, np.random.RandomState()
        self.axes = np.ones(size) if axes is None else axes.astype(np.float64)
        mean = np.zeros(size) if mean is None else mean.astype(np.float64)
        if self.axes.ndim == 1:
            self.origin, start = np.zeros(size), mean / self.axes
        else:
            self.origin, start = mean, np.zeros(len(self.axes))
        self.asked: list[np.ndarray] = []  # the candidates in CMA-ES's coordinates
        options = {
            "popsize": population,
            "CMA_diagonal": covariance == "diagonal",
            "randn": self.random.randn,  # instead of numpy's global generator
            "seed": np.nan,  # `ask` seeds each generation
            "verbose": -9,
            "verb_log": 0,
            "verb_disp": 0,
        }
        self.strategy = cma.CMAEvolutionStrategy(start, sigma0, options)

    @property
    def mean(self) -> np.ndarray:
        """The distribution's mean, which is the result: the best candidate is mostly lucky. (N,)"""
        return self._theta(np.array(self.strategy.mean, np.float64))

    @property
    def sigma(self) -> float:
        return float(self.strategy.sigma)

    def ask(self) -> np.ndarray:
        """This generation's candidates. (P, N)"""
        self.random.seed(derive(self.seed, "ask", self.generation) % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.asked = self.strategy.ask()
        return self._theta(np.stack(self.asked))

    def tell(self, scores: np.ndarray) -> None:
        """Update with the last candidates' scores, higher is better; NaN and infinite scores count as the worst."""
        finite = np.isfinite(scores)
        if not finite.any():
            raise Failure(f"no candidate of generation {self.generation} has a score")
        scores = np.where(finite, scores, scores[finite].min() - 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.strategy.tell(self.asked, list(-scores))  # pycma minimises
        self.generation += 1

    def _theta(self, x: np.ndarray) -> np.ndarray:
        """CMA-ES's coordinates (..., D) to theta. (..., N)"""
        return self.origin + (x * self.axes if self.axes.ndim == 1 else x @ self.axes)

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Arrays and plain values, valid between tell and ask; after `load_state` the search continues bit for bit."""
        arrays: dict[str, np.ndarray] = {"origin": self.origin, "axes": self.axes}
        names: dict[int, str] = {}  # by id: pycma holds some arrays under two names, which must stay one array
        plain: dict[str, Any] = {}
        for path, holder, name in _attributes(self.strategy):
            value = vars(holder)[name]
            if isinstance(value, np.ndarray):
                columns = value.ndim == 2 and not value.flags.c_contiguous  # the layout of LAPACK's results
                plain[path] = {"array": names.setdefault(id(value), path), "columns": columns}
                arrays[names[id(value)]] = np.array(value.T if columns else value, order="C")
            elif type(value) is list and any(isinstance(item, np.ndarray) for item in value):
                plain[path] = {"arrays": len(value)}  # directions injected into the next generation
                arrays |= {f"{path}.{index}": np.array(item, order="C") for index, item in enumerate(value)}
            elif isinstance(value, range):
                plain[path] = list(value)
            elif _is_plain(value):
                plain[path] = _encode(value)
        return arrays, {"generation": self.generation, "attributes": plain}

    def load_state(self, arrays: dict[str, np.ndarray], plain: dict[str, Any]) -> None:
        """Restore a state in an Evolution made with the same arguments. Only sets values and runs no code."""
        self.generation = plain["generation"]
        self.origin, self.axes = arrays["origin"], arrays["axes"]
        known = {path.rpartition(".")[0]: holder for path, holder, _ in _attributes(self.strategy)}
        attributes = plain["attributes"]
        # BLAS adds in another order with another memory layout.
        columns = {path for path, value in attributes.items() if isinstance(value, dict) and value.get("columns")}
        copies = {path: array.T.copy("F") if path in columns else array.copy("C") for path, array in arrays.items()}
        for path, value in attributes.items():
            holder, _, name = path.rpartition(".")
            if holder not in known:
                raise Failure(
                    f"pycma {cma.__version__} has no {holder}: install the version that this evolution started with"
                )
            if not isinstance(value, dict):
                restored = _decode(value)
            elif "arrays" in value:
                restored = [copies[f"{path}.{index}"] for index in range(value["arrays"])]
            else:
                restored = copies[value["array"]]
            vars(known[holder])[name] = restored
        self.strategy.timer = cma.utilities.utils.ElapsedWCTime()  # as after a first ask


# Attributes that do not affect the search: functions, clocks, logs, and values that are computed again on demand.
SKIPPED = set("opts inopts inputargs timer logger more_to_write _stopdict _es_opts".split())  # noqa: SIM905
SKIPPED |= set("_parameters _lam _mueff _tell2_args pop ary pop_sorted".split())  # noqa: SIM905


def _attributes(top: Any) -> list[tuple[str, Any, str]]:
    """(path, holder, name) of every attribute of pycma's objects reachable from this one, each object once."""
    found, todo, seen = [], [("strategy", top)], {id(top)}
    while todo:
        path, holder = todo.pop()
        for name, value in sorted(vars(holder).items()):
            if name in SKIPPED:
                continue
            found.append((f"{path}.{name}", holder, name))
            nested = type(value).__module__.startswith("cma.") and hasattr(value, "__dict__")
            if nested and not isinstance(value, dict) and id(value) not in seen:
                seen.add(id(value))
                todo.append((f"{path}.{name}", value))
    return found


def _is_plain(value: Any) -> bool:
    if type(value) is list:  # not subclasses, of which pycma has some
        return all(_is_plain(item) for item in value)
    return value is None or isinstance(value, bool | int | float | str | np.floating | np.integer)


def _encode(value: Any) -> Any:
    """For JSON, whose floats are exact; numpy scalars keep their type, since they behave differently from Python's."""
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if isinstance(value, np.generic):
        return [NUMPY, value.dtype.str, value.item()]
    return value


def _decode(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    if value[:1] == [NUMPY]:
        return np.dtype(value[1]).type(value[2])
    return [_decode(item) for item in value]


NUMPY = "numpy scalar"
