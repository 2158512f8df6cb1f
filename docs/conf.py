"""How Sphinx builds these pages, README and changelog: ``make docs``.

Links between the pages name files (```Add a vendor <add-a-vendor.rst>`_``), which GitHub follows as they are.  Here
each is turned into a link to the page, and the build fails for one that leads nowhere, or a page that none leads to.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from docutils import nodes
from sphinx.util import logging

from ecommerce_worker import __version__

if TYPE_CHECKING:
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

logger = logging.getLogger(__name__)

project = 'ecommerce_worker'
release = version = __version__
root_doc = 'docs/index'
include_patterns = ['README.rst', 'CHANGELOG.rst', 'docs/**']
html_theme = 'alabaster'
html_theme_options = {'description': 'It fulfils paid orders and sends their mail, whatever the network does.'}
html_show_copyright = False
nitpicky = True
# Pages are found by the links of the others, which is checked below, not by a tree of contents.
suppress_warnings = ['toc.not_included']

#: A link to a file, with a section or not; neither a URL nor a section of the same page.
TO_A_FILE = re.compile(r'(?P<path>[^:#?]+)(#(?P<section>[\w-]+))?')

ROOT = Path(__file__).parents[1]


def resolve_links(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Turn links to files of the pages into links to the pages; complain of those that lead nowhere."""
    env = app.env
    for link in doctree.findall(nodes.reference):
        if not (found := TO_A_FILE.fullmatch(link.get('refuri', ''))) or link.get('internal'):
            continue
        path = posixpath.normpath(posixpath.join(posixpath.dirname(page), found['path']))
        other, extension = posixpath.splitext(path)
        if extension == '.rst' and other in env.found_docs:
            linked(env).add(other)
            section = found['section']
            if section and section not in sections(env.get_doctree(other)):
                logger.warning('%s has no section %s', path, section, location=link)
            link['refuri'] = app.builder.get_relative_uri(page, other) + (f'#{section}' if section else '')
        elif not (ROOT / path).exists():
            logger.warning('there is no %s to link to', path, location=link)


def sections(doctree: nodes.document) -> set[str]:
    """The names by which sections of a page are linked to."""
    return {name for section in doctree.findall(nodes.section) for name in section['ids']}


def linked(env: BuildEnvironment) -> set[str]:
    """The pages that a link leads to."""
    found: set[str] = env.__dict__.setdefault('ecommerce_worker_linked', set())
    return found


def find_orphans(app: Sphinx, error: Exception | None) -> None:
    """Complain of pages that no link leads to."""
    if error is None:
        for page in sorted(app.env.found_docs - linked(app.env) - {root_doc, 'README'}):
            logger.warning('no page links to %s.rst', page)


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect('doctree-resolved', resolve_links)
    app.connect('build-finished', find_orphans)
    return {'parallel_read_safe': True, 'parallel_write_safe': False}
