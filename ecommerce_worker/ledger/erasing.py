"""Removing a mail address from the texts of the ledger."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Final

from django.db import models, transaction
from django.db.models import Q
from django.db.models.functions import Upper

from ecommerce_worker.ledger.models import Attempt, Audit, IntakeHour, Order, ParkedMessage, SetAside

#: The columns in which people, or those who made a message, may have written an address.
TEXTS: Final[Mapping[type[models.Model], tuple[str, ...]]] = {
    Order: ('key', 'reason'), Attempt: ('message_id', 'root_id', 'reason'),
    ParkedMessage: ('message_id', 'key', 'reason', 'history'), Audit: ('message_id', 'key', 'reason'),
    IntakeHour: ('counts',)}


def rewrite(address: str, without: Callable[[str], str], *, dry: bool) -> Iterator[tuple[str, int]]:
    """Remove the address from all texts with ``without``; yields each table that had it, and in how many rows.

    Reports that could not be read are deleted. ``dry`` changes nothing.
    """
    for model, names in TEXTS.items():
        if count := sum(_rewritten(row, names, without, dry=dry) for row in _having(model, names, address)):
            yield str(model._meta.db_table), count  # noqa: SLF001 - documented by Django
    aside = [row for row in SetAside.objects.iterator(100)
             if without(text := bytes(row.body).decode(errors='replace')) != text]
    if aside:
        if not dry:
            SetAside.objects.filter(pk__in=[row.pk for row in aside]).delete()
        yield str(SetAside._meta.db_table), len(aside)  # noqa: SLF001 - as above


def forget(learners: Collection[str], *, dry: bool) -> int:
    """Remove these pseudonyms of a learner, and the masked address, from the lines of orders; returns how many."""
    found = Order.objects.filter(learner__in=learners)
    return int(found.count() if dry else found.update(learner='', mask=''))


def _having(model: type[models.Model], names: tuple[str, ...], address: str) -> Iterator[Any]:
    """Rows with the address in one of these columns, ignoring case, whatever the collation of the database."""
    found = Q()
    for name in names:
        found |= Q(**{f'upper_{name}__contains': address.upper()})
    rows = model._default_manager.alias(**{f'upper_{name}': Upper(name) for name in names}).filter(found)  # noqa: SLF001
    yield from rows.order_by('pk').only('pk', *names).iterator(100)


def _rewritten(row: Any, names: tuple[str, ...], without: Callable[[str], str], *, dry: bool) -> bool:
    changed = [name for name in names if without(getattr(row, name)) != getattr(row, name)]
    if changed and not dry:
        for name in changed:
            setattr(row, name, without(getattr(row, name)))
        with transaction.atomic():
            row.save(update_fields=changed)
    return bool(changed)
