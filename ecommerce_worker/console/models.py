"""The console's permissions; it stores nothing else besides Django's own users and sessions."""

from django.db import models


class Right(models.Model):  # noqa: DJ008 - there are none to be shown
    """Not a table: only something for Django's permissions to belong to."""

    class Meta:
        """The permissions."""

        managed = False
        default_permissions = ()
        permissions = (
            ('look', 'Look at orders and parked messages'),
            ('resend', 'Send a parked message again'),
            ('discard', 'Throw a parked message away'),
            ('read', 'Read what is in a parked message'),
        )
