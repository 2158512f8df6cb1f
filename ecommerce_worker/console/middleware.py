"""What a browser is told to refuse on our pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

#: Nothing from elsewhere, nothing inline, in nobody's frame.
POLICY: Final = ("default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; form-action 'self'; "
                 "base-uri 'none'; frame-ancestors 'none'")


def restricted(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """A middleware: pages load nothing from elsewhere, and are kept by no cache."""
    def restrict(request: Any) -> Any:
        response = answer(request)
        response.headers.setdefault('Content-Security-Policy', POLICY)
        response.headers.setdefault('Cache-Control', 'no-store')
        return response

    return restrict
