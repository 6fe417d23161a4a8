"""coc-export: turn a compressed model.pt into an .onnx file, a .coc file or both: the same integers."""

import sys
from collections.abc import Sequence

from coc_runtime import command


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; 0 on success, else one line on stderr and 2, or 1 where --verify found a difference."""
    return command.run("coc-export", _main, arguments, extra="compile", stopped="files written are whole")


def _main(arguments: Sequence[str] | None) -> int:
    from . import exporting, options, verify

    wanted = options.parse(arguments)
    if isinstance(wanted, options.Verify):
        verify.verify(wanted)
    elif isinstance(wanted, options.FloatExport):
        exporting.export_float(wanted)
    else:
        exporting.export(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
