"""The security headers of our pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

#: Nothing from elsewhere, nothing inline, no framing.
POLICY: Final = ("default-src 'none'; style-src 'self'; img-src 'self'; script-src 'self'; form-action 'self'; "
                 "base-uri 'none'; frame-ancestors 'none'")


def restricted(answer: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Middleware that adds the content security policy and forbids caching."""
    def restrict(request: Any) -> Any:
        response = answer(request)
        response.headers.setdefault('Content-Security-Policy', POLICY)
        response.headers.setdefault('Cache-Control', 'no-store')
        return response

    return restrict
