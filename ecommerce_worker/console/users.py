"""People who may log in; each chooses their own password."""

from __future__ import annotations

from axes.utils import reset
from django.contrib.auth.models import User
from django.contrib.auth.tokens import default_token_generator
from django.contrib.auth.validators import UnicodeUsernameValidator
from django.core.exceptions import ValidationError
from django.db import transaction
from django.urls import reverse
from django.utils.encoding import force_bytes
from django.utils.http import urlsafe_base64_encode

from ecommerce_worker.console import roles
from ecommerce_worker.errors import WorkerError


class BadName(WorkerError):
    """A user name may have up to 150 letters, digits and @.+-_ only."""


def is_anybody_there() -> bool:
    """Whether anyone can log in as an operator."""
    found = User.objects.filter(is_active=True, groups__name='operator')
    return any(user.has_usable_password() for user in found)


def invite(name: str, role: str = '') -> str:
    """The path of a link, valid once and for a day, at which this person chooses a password.

    Creates the user if needed (an operator unless a role is given); otherwise a role changes theirs.  Earlier links and
    the current password become invalid.  Raises :class:`BadName` or
    :class:`~ecommerce_worker.console.roles.NoSuchRole`.
    """
    try:
        UnicodeUsernameValidator()(name)
    except ValidationError:
        raise BadName(f'not a valid user name: {name!r}') from None
    if len(name) > 150:
        raise BadName('a user name has at most 150 characters')
    with transaction.atomic():
        user, made = User.objects.get_or_create(username=name)
        user.set_unusable_password()
        user.is_active = True
        user.save()
        if made or role:
            user.groups.set([roles.group(role or 'operator')])
    # A new link also unlocks the name after wrong passwords.
    reset(username=name)
    return link_of(user)


def first_link() -> str:
    """The path of a link for the first operator; one printed earlier stays valid."""
    user = User.objects.filter(username='operator', is_active=True, groups__name='operator').first()
    return link_of(user) if user and not user.has_usable_password() else invite('operator')


def link_of(user: User) -> str:
    """The path of the link; any change of the password, also through this link, makes it invalid."""
    who, token = urlsafe_base64_encode(force_bytes(user.pk)), default_token_generator.make_token(user)
    return str(reverse('invitation', kwargs={'uidb64': who, 'token': token}))
