"""`python -m coc_study`: see cli."""

import sys

from .cli import main

sys.exit(main())
