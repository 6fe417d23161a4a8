"""coc-export: turn a compressed model.pt into an .onnx file, a .coc file or both: the same integers."""

import sys

from coc_runtime.errors import CocError

from . import exporting, options, verify
from .options import FloatExport, Verify


def main(arguments: list[str] | None = None) -> int:
    """Entry point; 0 on success, else one line on stderr and 2, or 1 where --verify found a difference."""
    try:
        wanted = options.parse(arguments)
        if isinstance(wanted, Verify):
            verify.verify(wanted)
        elif isinstance(wanted, FloatExport):
            exporting.export_float(wanted)
        else:
            exporting.export(wanted)
        return 0
    except CocError as error:
        print(f"coc-export: error: {error}", file=sys.stderr)
        return 1 if isinstance(error, verify.Differs) else 2


if __name__ == "__main__":
    sys.exit(main())
