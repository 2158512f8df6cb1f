"""Roles and their permissions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from django.contrib.auth.models import Group, Permission

from ecommerce_worker.errors import WorkerError

#: Roles, and the permissions of each.
ROLES: Final[Mapping[str, tuple[str, ...]]] = {
    'viewer': ('console.look',),
    'support': ('console.look', 'console.resend'),
    'operator': ('console.look', 'console.resend', 'console.discard', 'console.read', 'ledger.view_audit',
                 'auth.view_user', 'auth.add_user', 'auth.change_user', 'auth.delete_user'),
}


class NoSuchRole(WorkerError):
    """The roles are viewer, support and operator."""


def make() -> None:
    """Create or update the roles; idempotent."""
    for role, names in ROLES.items():
        group, _ = Group.objects.get_or_create(name=role)
        wanted = {tuple(name.split('.')) for name in names}
        found = Permission.objects.filter(codename__in=[codename for _, codename in wanted]).select_related(
            'content_type')
        group.permissions.set([it for it in found if (it.content_type.app_label, it.codename) in wanted])


def group(role: str) -> Group:
    """The Django group of that role; raises :class:`NoSuchRole`."""
    if role not in ROLES:
        raise NoSuchRole(f'there is no role {role}; there are {", ".join(ROLES)}')
    return Group.objects.get(name=role)
