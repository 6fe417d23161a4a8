"""`python -m coc_bench`: see cli."""

import sys

from .cli import main

sys.exit(main())
