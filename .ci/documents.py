"""Reads these documents, and those in these folders, as a forge does; ends with status 1 if docutils remarks on any."""

import sys
from pathlib import Path

from docutils.core import publish_string
from docutils.utils import SystemMessage

INFO = 1


def main() -> None:
    """Read all of them in one process: docutils takes longer to begin than to read one."""
    wrong = False
    for name in sys.argv[1:]:
        for path in sorted(Path(name).rglob('*.rst')) if Path(name).is_dir() else [Path(name)]:
            print(f'rst {path}')
            try:
                # A message of that level has been printed by the time that it is raised.
                publish_string(path.read_text(), str(path), writer='html5', settings_overrides={
                    'report_level': INFO, 'halt_level': INFO})
            except SystemMessage:
                wrong = True
    sys.exit(wrong)


if __name__ == '__main__':
    main()
