"""`python -m oncoseg` is `oncoseg`."""

import sys

from oncoseg.cli import main

sys.exit(main())
