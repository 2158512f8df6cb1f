"""What takes long to make and fits any clone is kept in one folder: that of ``CACHE_DIR``, else ``.cache``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import pytest

from ecommerce_worker import settings

ROOT: Final = Path(settings.__file__).parents[2]
CACHE: Final = Path(os.environ.get('CACHE_DIR') or ROOT / '.cache')

#: The programs that the files of ``deploy/`` are checked with.
TOOLS: Final = CACHE / 'deploy-tools' / 'bin'

needs_tools = pytest.mark.skipif(not (TOOLS.parent / '.installed').exists(),
                                 reason='deploy/ is not checked here: make deploy-tools')
