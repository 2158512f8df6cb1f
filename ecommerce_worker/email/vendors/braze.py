"""Mail through Braze: with its messages API and our own text, or with a campaign that has the text.

Braze mails profiles, not addresses.  A profile has an external id (the LMS's id of a learner), aliases, or both.

::

    a mail with a body                        a usage mail with variables
    ──────────────────                        ───────────────────────────
    look up  who has a profile                look up  who of those without an LMS id has a profile
    make     profiles of those who have none  make     profiles of those who have none
                                              identify join aliases with LMS ids
    send     the message                      trigger  the campaign

All steps but the last mail nobody and may be repeated: an alias that exists is left as it is, attributes are set again.

Looking up is what Braze limits most (250 a minute), so a message asks once.  A request can name one mail address, or 50
aliases.  A single recipient, as nearly all mail has, is looked up by address, which finds every learner whom Braze
knows; several are looked up by the aliases that this worker gives.

Limits and answers are those of https://www.braze.com/docs/api (``endpoints`` and ``errors``).  Not written there, but
observed by many: an ``index`` among the ``errors`` counts within the array that ``input_array`` names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ecommerce_worker import logs
from ecommerce_worker.clients.auth import Bearer
from ecommerce_worker.clients.http import Api
from ecommerce_worker.email.message import Email, Purpose, Receipt, one_line, sender, without_addresses
from ecommerce_worker.errors import ApiError, Misconfigured, PeerFailure, Rejected
from ecommerce_worker.retry import Regular

logger = logs.of(__name__)

#: How many recipients, aliases or profiles a request may name; ``/users/track`` would take 75.
BATCH: Final = 50

#: What kind of alias ours is; its name is the mail address.
LABEL: Final = 'Enterprise'

#: Joins an alias with an external id; no setting ever named this endpoint.
IDENTIFY_ENDPOINT: Final = '/users/identify'

USAGE_CAMPAIGN: Final = 'ENTERPRISE_CODE_USAGE_API_TRIGGERED_CAMPAIGN_ID'

REQUIRED: Final = (
    'BRAZE_REST_API_KEY', 'BRAZE_WEBAPP_API_KEY', 'REST_API_URL', 'FROM_EMAIL', 'MESSAGES_SEND_ENDPOINT',
    'EMAIL_BOUNCE_ENDPOINT', 'NEW_ALIAS_ENDPOINT', 'USERS_TRACK_ENDPOINT', 'EXPORT_ID_ENDPOINT',
    'CAMPAIGN_SEND_ENDPOINT',
)

Alias = Mapping[str, str]


@dataclass(frozen=True, repr=False)
class Recipient:
    """A recipient: identified by the external id if there is one, else by the alias."""

    address: str
    external_id: str = ''
    alias: Alias = field(default_factory=dict)
    #: Whether there is no profile, or none that has the address yet.
    is_new: bool = False


class Vendor:
    """Braze, configured by ``settings.BRAZE``."""

    def __init__(self, options: Mapping[str, Any], connect: Callable[..., Api]) -> None:
        if missing := [f'BRAZE[{name}] is not set' for name in REQUIRED if not options.get(name)]:
            raise Misconfigured(missing)
        self.policy = Regular(options['BRAZE_RETRY_SECONDS'], options['BRAZE_RETRY_ATTEMPTS'])
        self._options = options
        self._api = connect(options['REST_API_URL'], peer='Braze', signer=Bearer(options['BRAZE_REST_API_KEY']))

    def send(self, email: Email) -> Receipt:
        """Mail the first 50 recipients that Braze accepts; the others are left for further messages.

        See :meth:`~ecommerce_worker.email.mailer.Mailer.send`.
        """
        mail = self._way_of(email)
        now = email.to[:BATCH]
        identified = lms_ids(email) if uses_campaign(email) else {}
        found = self._looked_up([address for address in now if address not in identified])
        recipients = [found.get(address) or Recipient(address, identified[address]) for address in now]
        answer, accepted = self._accepted(recipients, mail)
        # Queued (Braze is in maintenance) it has no id; the shop accepts each id only once, so one is needed.
        return Receipt(str(answer.get('dispatch_id') or email.id),
                       tuple(address for address in email.to if address not in accepted))

    def bounced(self, address: str) -> bool:
        """Whether Braze lists the address as a hard bounce."""
        answer = self._ask('GET', self._options['EMAIL_BOUNCE_ENDPOINT'], params={'email': address})
        return bool(answer.get('emails'))

    def _way_of(self, email: Email) -> Callable[[Sequence[Recipient]], dict[str, Any]]:
        """A function that mails some of the recipients in one request, which must not be repeated once accepted."""
        options = self._options
        if not uses_campaign(email):
            return lambda some: self._post(options['MESSAGES_SEND_ENDPOINT'], message(options, email, some))
        campaign = email.campaign_id or options.get(USAGE_CAMPAIGN)
        if not campaign:
            raise Misconfigured([f'BRAZE[{USAGE_CAMPAIGN}] is not set, and the message names no campaign'])

        def trigger(some: Sequence[Recipient]) -> dict[str, Any]:
            if joins := identification(email, some):
                self._prepare(IDENTIFY_ENDPOINT, {'aliases_to_identify': joins})
            return self._post(options['CAMPAIGN_SEND_ENDPOINT'], triggered(campaign, email, some))

        return trigger

    def _looked_up(self, addresses: Sequence[str]) -> dict[str, Recipient]:
        """The recipients with these addresses, by address; at most one request."""
        if not addresses:
            return {}
        answer = self._prepare(self._options['EXPORT_ID_ENDPOINT'], lookup(addresses))
        profiles = [Profile.of(user) for user in _mappings(answer.get('users'))]
        return {address: recipient(address, profiles, by_address=len(addresses) == 1) for address in addresses}

    def _accepted(self, recipients: Sequence[Recipient],
                  mail: Callable[[Sequence[Recipient]], dict[str, Any]]) -> tuple[dict[str, Any], set[str]]:
        """Braze's answer, and the addresses that it accepted: all, or a part if one of them spoils the request.

        A 400 means that nobody was mailed, so other parts may be tried; once a part is accepted, no other is.
        """
        refused: Rejected | None = None
        for part in parts(recipients):
            try:
                able = self._with_profiles(part)
                return mail(able), {one.address for one in able}
            except Rejected as error:
                if error.status != 400:
                    raise
                refused = error
        raise refused or Rejected('Braze got no recipients')

    def _with_profiles(self, recipients: Sequence[Recipient]) -> list[Recipient]:
        """The recipients, after creating profiles for new ones."""
        new = [one for one in recipients if one.is_new]
        if not new:
            return list(recipients)
        self._prepare(self._options['NEW_ALIAS_ENDPOINT'], {'user_aliases': [dict(one.alias) for one in new]})
        answer = self._prepare(self._options['USERS_TRACK_ENDPOINT'], {'attributes': [attributes(one) for one in new]})
        unable = {new[index].address for index in refused_of('attributes', answer, len(new))}
        able = [one for one in recipients if one.address not in unable]
        if not able:
            # Braze wraps it in a success, but it is as good as a 400.
            raise Rejected(f'Braze refuses the recipients: {reasons(answer)}', status=400)
        return able

    def _prepare(self, endpoint: str, body: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to a request that mails nobody and can always be repeated."""
        try:
            return self._post(endpoint, body)
        except ApiError as error:
            error.maybe_done = False
            raise

    def _post(self, endpoint: str, body: Mapping[str, Any]) -> dict[str, Any]:
        answer = self._ask('POST', endpoint, json=body)
        if answer.get('message') not in ('success', 'queued'):
            raise Rejected(f'Braze does not accept it: {reasons(answer) or "no reason given"}')
        if answer.get('errors'):
            logger.warning('Braze accepted a request with minor errors', endpoint=endpoint)
        return answer

    def _ask(self, method: str, endpoint: str, *, params: Mapping[str, str] | None = None,
             json: Mapping[str, Any] | None = None) -> dict[str, Any]:
        try:
            answer = self._api.request(method, endpoint, params=params, json=json)
        except ApiError as error:
            raise explained(error) from None
        if not isinstance(answer, dict):
            raise PeerFailure('Braze answered with unexpected JSON', status=200, maybe_done=True)
        return answer


# --- Who has which profile ------------------------------------------------------------------------------------------


@dataclass(frozen=True, repr=False)
class Profile:
    """A Braze profile, as far as we request it."""

    external_id: str
    email: str
    aliases: Sequence[Alias]

    @classmethod
    def of(cls, user: Mapping[str, Any]) -> Profile:
        """Parse an exported profile, which leaves out empty fields."""
        aliases = [alias_of(str(it.get('alias_label')), str(it.get('alias_name')))
                   for it in _mappings(user.get('user_aliases'))]
        return cls(str(user.get('external_id') or ''), str(user.get('email') or '').casefold(), aliases)


def alias_of(label: str, name: str) -> Alias:
    """An alias in Braze's format."""
    return {'alias_label': label, 'alias_name': name}


def aliases_of(address: str) -> tuple[Alias, Alias]:
    """The alias that we use, and the one that versions before 4 used for mail with a body, the other way round."""
    return alias_of(LABEL, address), alias_of(address, LABEL)


def lookup(addresses: Sequence[str]) -> dict[str, Any]:
    """One request for as many profiles as possible; older aliases as far as there is room."""
    fields = {'fields_to_export': ['external_id', 'email', 'user_aliases']}
    if len(addresses) == 1:
        return {'email_address': addresses[0], **fields}
    ours, older = zip(*map(aliases_of, addresses), strict=True)
    return {'user_aliases': [*ours, *older][:BATCH], **fields}


def recipient(address: str, profiles: Iterable[Profile], *, by_address: bool) -> Recipient:
    """The best recipient for this address; ``by_address`` if the profiles were found by it.

    A learner comes before an alias.  An alias is good only if its profile has the address, which it lacks if we broke
    off between giving the two.
    """
    ours, older = aliases_of(address)
    mine = [one for one in profiles
            if by_address or one.email == address.casefold() or ours in one.aliases or older in one.aliases]
    for one in mine:
        if one.external_id:
            return Recipient(address, one.external_id)
    usable = [alias for one in mine if by_address or one.email == address.casefold() for alias in one.aliases]
    for alias in (ours, older, *usable):
        if alias in usable:
            return Recipient(address, alias=alias)
    return Recipient(address, alias=ours, is_new=True)


def parts(recipients: Sequence[Recipient]) -> Iterator[Sequence[Recipient]]:
    """All, then halves, then quarters, for finding some without a bad one among them: seven parts at the most."""
    for pieces in (1, 2, 4):
        size = -(-len(recipients) // pieces)
        yield from (recipients[start:start + size] for start in range(0, len(recipients), size or 1))
        if size <= 1:
            return


# --- What is said to Braze ------------------------------------------------------------------------------------------


def uses_campaign(email: Email) -> bool:
    """Whether the text is in a Braze campaign; there is none for refunds, whose body contains the variables."""
    return email.purpose is Purpose.USAGE and bool(email.variables)


def lms_ids(email: Email) -> dict[str, str]:
    """The external ids given by the shop."""
    return {address: str(id_) for address, id_ in email.lms_user_ids.items() if id_ not in (None, '')}


def attributes(one: Recipient) -> dict[str, Any]:
    """The attributes of a new profile.

    Requests may overtake each other within Braze; without the flag these would be dropped if they came before the
    alias.  The text ``'true'`` is what segments have always been asked for.
    """
    return {'user_alias': one.alias, 'email': one.address, 'is_enterprise_learner': 'true',
            '_update_existing_only': False}


def message(options: Mapping[str, Any], email: Email, recipients: Iterable[Recipient]) -> dict[str, Any]:
    """A mail with a body; it goes to the unsubscribed too, for all of them are about something bought."""
    prefix = f'ENTERPRISE_CODE_{email.purpose.upper()}_'
    content: dict[str, Any] = {
        'app_id': options['BRAZE_WEBAPP_API_KEY'],
        'subject': one_line(email.subject),
        'from': sender(email.sender_alias, options['FROM_EMAIL']),
        'body': email.body,
    }
    if email.reply_to:
        content['reply_to'] = email.reply_to
    if email.attachments:
        content['attachments'] = [{'file_name': file.name, 'url': file.url} for file in email.attachments]
    if variation := options.get(f'{prefix}MESSAGE_VARIATION_ID'):
        content['message_variation_id'] = variation
    recipients = list(recipients)
    body: dict[str, Any] = {
        'user_aliases': [one.alias for one in recipients if not one.external_id],
        # Two addresses may be one learner's.
        'external_user_ids': list(dict.fromkeys(one.external_id for one in recipients if one.external_id)),
        'recipient_subscription_state': 'all',
        'messages': {'email': content},
    }
    if campaign := options.get(f'{prefix}CAMPAIGN_ID') or options.get('ENTERPRISE_CAMPAIGN_ID'):
        body |= {'campaign_id': campaign, 'override_frequency_capping': True}
    return body


def identification(email: Email, recipients: Iterable[Recipient]) -> list[dict[str, Any]]:
    """The aliases to merge with LMS ids; Braze ignores aliases that do not exist."""
    ids = lms_ids(email)
    return [{'external_id': ids[one.address], 'user_alias': aliases_of(one.address)[0]}
            for one in recipients if one.address in ids]


def triggered(campaign: str, email: Email, recipients: Iterable[Recipient]) -> dict[str, Any]:
    """A mail whose text is in a campaign."""
    ids = lms_ids(email)

    def entry(one: Recipient) -> dict[str, Any]:
        if one.address in ids:
            # A learner whom Braze does not know yet becomes known by this.
            return {'external_user_id': one.external_id, 'send_to_existing_only': False, 'trigger_properties': {},
                    'attributes': {'user_alias': aliases_of(one.address)[0], 'email': one.address,
                                   '_update_existing_only': False}}
        if one.external_id:
            return {'external_user_id': one.external_id, 'trigger_properties': {}}
        # Set before the mail is made, so that a new profile certainly has it; no flag, which aliases do not take.
        return {'user_alias': one.alias, 'trigger_properties': {}, 'attributes': {'email': one.address}}

    return {'campaign_id': campaign, 'trigger_properties': {'subject': one_line(email.subject), **email.variables},
            'recipients': [entry(one) for one in recipients], 'broadcast': False}


# --- What Braze says ------------------------------------------------------------------------------------------------


def reasons(answer: Any) -> str:
    """Braze's reasons for a refusal, without addresses; empty if it gives none."""
    if not isinstance(answer, Mapping):
        return ''
    errors = answer.get('errors')
    said = [answer.get('message'), *(errors if isinstance(errors, list) else [errors])]
    said = [it.get('type') or it.get('message') if isinstance(it, Mapping) else it for it in said]
    return without_addresses('; '.join(it for it in said if isinstance(it, str) and it not in ('', 'success')))


def explained(error: ApiError) -> ApiError:
    """The same error, with Braze's reason in its text."""
    said = reasons(error.answer)
    if not said:
        return error
    return type(error)(f'{error}: {said}', status=error.status, retry_after=error.retry_after,
                       maybe_done=error.maybe_done, answer=error.answer)


def refused_of(array: str, answer: Mapping[str, Any], length: int) -> set[int]:
    """The objects of an array in the request that Braze did not accept although it accepted the request."""
    named = [error.get('index') for error in _mappings(answer.get('errors')) if error.get('input_array') == array]
    return {index for index in range(length) if index in named}


def _mappings(found: Any) -> list[Mapping[str, Any]]:
    """The mappings in a list; other items are left out."""
    return [it for it in found if isinstance(it, Mapping)] if isinstance(found, list) else []
