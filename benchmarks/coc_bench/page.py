"""The page of a benchmark: what `coc-bench --html` writes."""

from pathlib import Path
from typing import Any

from coc_report.page import Section, document
from coc_runtime import files

from . import page_cost, page_exits, page_summary
from .facts import Facts


def write(path: Path, report: dict[str, Any]) -> None:
    """The page of a benchmark, from coc-bench's JSON; CocError where it cannot be written or drawn."""
    files.write_text(path, benchmark(report))


def benchmark(report: dict[str, Any]) -> str:
    """The page of a benchmark; sections that the report has nothing for are left out."""
    facts = Facts(report)
    run = facts.runs[facts.headline]
    parts = {
        "Summary": page_summary.summary(facts),
        "All runs": page_summary.all_runs(facts),
        "Latency": page_summary.latency(facts),
        "Early exits": page_exits.exits(facts),
        "Thresholds": page_exits.tradeoff(facts),
        "BitOps and time": page_cost.gap(facts),
        "Images by exit": page_exits.samples(facts),
        "Missing peers": page_cost.missing(facts),
        "Environment": page_cost.environment(facts),
    }
    found = [Section(title, body) for title, body in parts.items() if body]
    return document(f"{run['artifact']} on {run['data']}", found, page_summary.lead(facts))
