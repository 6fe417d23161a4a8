"""Loading a subject, whatever runs it: subjects know no engine, and engines know subjects."""

from .engines import ENGINES
from .subjects import ArtifactRunner, Kind, Runner, Subject


def open_runner(subject: Subject) -> Runner:
    """Load a subject; raises CocError where that fails."""
    if subject.kind is Kind.ARTIFACT:
        return ArtifactRunner(subject)
    return ENGINES[subject.backend].open(subject)
