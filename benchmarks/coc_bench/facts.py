"""A benchmark's JSON as its page reads it: values by path, what runs are called, which ones it is about."""

import operator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from coc_report.markup import ABSENT, Html, Pair, join, number, text

LIBRARIES = {
    "litert": "LiteRT",
    "mnn": "MNN",
    "native": "native",
    "ncnn": "ncnn",
    "onnxruntime": "ONNX Runtime",
    "openvino": "OpenVINO",
    "reference": "NumPy reference",
}
_OPERATIONS = {"+": operator.add, "-": operator.sub, "/": operator.truediv}
_UNITS = ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k"))


@dataclass(frozen=True)
class Speed:
    """Mean latency at batch 1 of one run against another's; numbers are paths or expressions."""

    to: int
    """the other run"""
    faster: str
    """how many times as fast the run is"""
    slower: str
    """how many times as long it takes"""
    low: str
    """bounds of `faster`'s 95 % interval; empty where the file has none"""
    high: str
    differs: bool | None
    """whether the interval leaves out 1; None without an interval"""


@dataclass(frozen=True, eq=False)
class Facts:
    """The report and what follows from it. Runs are called by their index in `runs`."""

    report: dict[str, Any]

    @property
    def runs(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.report["runs"]
        return found

    def value(self, path: str) -> Any:
        """What a path, or an expression like `A / B` or `A - B`, says; None where a part is absent."""
        first, *rest = path.split(" ")
        total = self._term(first)
        for sign, term in zip(rest[::2], rest[1::2], strict=True):
            other = self._term(term)
            if total is None or other is None or (sign == "/" and other == 0):
                return None
            total = _OPERATIONS[sign](total, other)
        return total

    def _term(self, path: str) -> Any:
        try:
            return float(path)
        except ValueError:
            pass
        value: Any = self.report
        for key in path.split("."):
            if isinstance(value, dict):
                value = value.get(key)
            elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
                value = value[int(key)]
            else:
                return None
        return value

    def number(self, path: str, form: str = "", scale: float = 1.0, unit: str = "") -> Html:
        """The number at a path or expression; form: three digits or more where it is left out."""
        value = self.value(path)
        if value is None:
            return text(ABSENT)
        return number(value, path, form or digits(value * scale), scale, unit)

    def percent(self, path: str, form: str = ".2f") -> Html:
        """A fraction of 1 in percent."""
        return self.number(path, form, 100, " %")

    def between(self, low: str, high: str, form: str) -> Html:
        """An interval; a dash where a bound is not known."""
        if self.value(low) is None or self.value(high) is None:
            return text(ABSENT)
        return join([self.number(low, form), self.number(high, form)], " to ")

    def times(self, path: str) -> Html:
        return self.number(path, unit="\N{MULTIPLICATION SIGN}")

    def big(self, path: str) -> Html:
        """A large number with a decimal prefix."""
        value = self.value(path) or 0
        size, unit = next(((size, unit) for size, unit in _UNITS if value >= size), (1.0, ""))
        return self.number(path, scale=1 / size, unit=unit)

    def size(self, path: str) -> Html:
        """Bytes in decimal kB or MB."""
        value = self.value(path) or 0
        scale, unit = (1e-6, " MB") if value >= 1e6 else (1e-3, " kB")
        return self.number(path, scale=scale, unit=unit)

    def backend(self, k: int) -> str:
        """The library of a run, with a peer's version or the level of kernels."""
        run = self.runs[k]
        library = LIBRARIES.get(run["backend"], run["backend"])
        version = None if run["kind"] == "artifact" else run.get("version")
        return " ".join(filter(None, (library, version, run.get("cpu_level"))))

    def name(self, k: int) -> str:
        """A run's name, with its back end where the artifact alone does not tell it from others."""
        run = self.runs[k]
        alone = sum(other["artifact"] == run["artifact"] for other in self.runs) == 1
        return run["artifact"] if alone else f"{run['artifact']} in {self.backend(k)}"

    def pair(self, k: int) -> Pair:
        """A run's name and back end as cells of a table."""
        return Pair(self.runs[k]["artifact"], self.backend(k))

    def mean(self, k: int) -> float:
        return float(self.runs[k]["latency_us"]["mean"])

    @cached_property
    def artifacts(self) -> list[int]:
        """The runs of compressed models; all runs where there are none."""
        found = [k for k, run in enumerate(self.runs) if run["kind"] == "artifact"]
        return found or list(range(len(self.runs)))

    @cached_property
    def headline(self) -> int:
        """The run that the page is about: the fastest artifact."""
        return min(self.artifacts, key=self.mean)

    @cached_property
    def original(self) -> int | None:
        """The float model that the others are compared with."""
        return next((k for k, run in enumerate(self.runs) if run["kind"] == "original"), None)

    @cached_property
    def models(self) -> list[int]:
        """One run per model: the fastest of those that answer alike. The headline is the first."""
        found: dict[tuple[Any, ...], int] = {}
        for k in sorted(self.artifacts, key=self.mean):
            run = self.runs[k]
            spent = run["expected_bitops"], run.get("cr")
            answers = (run["accuracy"], run.get("mae"), *spent, *run["exit_share"])
            found.setdefault(answers, k)
        return list(found.values())

    def speeds(self, k: int) -> list[Speed]:
        """Run k against every other run, in the order of `runs`."""
        return [self._speed(k, other) for other in range(len(self.runs)) if other != k]

    def _speed(self, k: int, other: int) -> Speed:
        for index, ratio in enumerate(self.report.get("ratios") or []):
            at = f"ratios.{index}"
            mean, low, high = f"{at}.mean_latency_ratio", f"{at}.interval.0", f"{at}.interval.1"
            below, above = ratio["interval"]
            differs = not below <= 1 <= above
            if (ratio["of"], ratio["to"]) == (k, other):
                return Speed(other, f"1 / {mean}", mean, f"1 / {high}", f"1 / {low}", differs)
            if (ratio["of"], ratio["to"]) == (other, k):
                return Speed(other, mean, f"1 / {mean}", low, high, differs)
        mine, its = f"runs.{k}.latency_us.mean", f"runs.{other}.latency_us.mean"
        return Speed(other, f"{its} / {mine}", f"{mine} / {its}", "", "", None)


def digits(value: float) -> str:
    """The format that shows three digits, or all of those before the point."""
    size = abs(value)
    return ".2f" if size < 10 else ".1f" if size < 100 else ",.0f"


def plural(count: int, word: str) -> str:
    return word if count == 1 else f"{word}s"
