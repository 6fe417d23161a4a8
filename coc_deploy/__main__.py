"""`python -m coc_deploy`: see cli."""

import sys

from .cli import main

sys.exit(main())
