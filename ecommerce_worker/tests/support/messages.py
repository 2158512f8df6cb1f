"""Real messages of real producers, byte by byte."""

import json
from pathlib import Path
from typing import Any

MESSAGES: list[dict[str, Any]] = json.loads(Path(__file__).with_name('messages.json').read_text(encoding='utf-8'))
