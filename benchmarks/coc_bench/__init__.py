"""coc-bench: measures compressed artifacts and their peers on the machine it runs on."""

from coc_runtime.errors import CocError

from .api import measure

__all__ = ["CocError", "measure"]
