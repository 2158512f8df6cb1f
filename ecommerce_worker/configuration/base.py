"""Every setting, its default and its meaning: the operator's reference page.

Settings come from these, each overriding those before it: this module; the settings module named by
``WORKER_CONFIGURATION_MODULE`` (``ecommerce_worker.configuration.local`` if it is not set); the YAML file named by
``ECOMMERCE_WORKER_CFG``; the environment variable ``ECOMMERCE_WORKER_<SETTING>``; and, for the messages of one site,
``SITE_OVERRIDES``.

* Mappings such as ``BRAZE`` are merged key by key: a layer only needs the keys that differ from those below it.
* Values may be strings, as templates write them: ``"11"``, ``"true"``, ``"{'edx': {...}}"``. For settings that
  are not strings, ``""`` means "not set" and leaves the layer below in force; any other value counts, also ``False``
  and ``0``.
* ``${NAME}`` within a string is replaced by the environment variable of that name (``$${NAME}`` becomes ``${NAME}``).
* A secret, and ``BROKER_URL``, may be ``file:/path/of/a/file``: the content of the file, stripped.
* Other settings of Celery may be given beside these, under their old names (``CELERYD_MAX_TASKS_PER_CHILD``) or their
  new ones (``worker_max_tasks_per_child``), and are passed to Celery unchanged.

``ecommerce-worker check`` prints what is in force, where each value came from, and everything that is wrong.
All durations are in seconds.
"""

from .logger import get_logger_config, without_missing_handlers

# --- How settings modules are loaded: two marks for settings modules only, no settings ------------------------------

# True in a settings module that is not complete without the YAML file named by ECOMMERCE_WORKER_CFG.
YAML_REQUIRED = False

# Name of an environment variable that, set to anything, keeps the YAML file from being read or required.
YAML_OPT_OUT = ''

# --- The broker -----------------------------------------------------------------------------------------------------

# The URL of RabbitMQ, or several to fall back on (a list, or joined by ';'). Percent-encode special characters
# of the password ('/' is %2F). A URL that ends with the port means the virtual host '/'.
BROKER_URL: str | list[str] = 'amqp://celery:celery@127.0.0.1:5672'

# Maximum number of connections kept open for publishing; 0 opens a new one for each message, which strains load
# balancers.
BROKER_POOL_LIMIT: int | None = 10

# Time-out for establishing a connection: long enough for TLS through a load balancer.
BROKER_CONNECTION_TIMEOUT: float = 4

# A connection without a sign of life for this long counts as lost; 0 disables heartbeats.
BROKER_HEARTBEAT: float = 10.0

# How often within BROKER_HEARTBEAT the connection is checked.
BROKER_HEARTBEAT_CHECKRATE: float = 2

# TLS to the broker. True: its certificate must be signed by an authority that this machine trusts. Or a mapping:
#   ca_certs         a file of certificates in PEM format; the broker's must be signed by one of these
#   certfile, keyfile   our own certificate and its key, if the broker requires one
#   cert_reqs        'required' (if not given), 'optional', or 'none', which trusts any server: for development only
#   check_hostname   false: the certificate may be for another host than the one in BROKER_URL
#   server_hostname  RabbitMQ only: the host of the certificate, if it is not the one in BROKER_URL
#   ciphers          as OpenSSL names them
# Celery's spellings are accepted, too: ssl_ca_certs, ssl.CERT_REQUIRED, CERT_NONE …
# See docs/how-to/encrypt-the-broker.rst.
BROKER_USE_SSL: bool | dict[str, object] = False

# Further options of the transport, such as {'visibility_timeout': 43200}; merged into those that the worker needs.
BROKER_TRANSPORT_OPTIONS: dict[str, object] = {}

# True lets the worker start on a transport that can lose messages when a worker dies, for a demonstration.
ALLOW_UNSAFE_BROKER = False

# RabbitMQ's management plugin, for `ecommerce-worker doctor`, which finds policies there that would destroy orders; its
# user needs the tag 'monitoring'. Empty: it runs rabbitmqctl, which only works on the machine of a node.
MANAGEMENT_URL = ''

# --- Queues ---------------------------------------------------------------------------------------------------------

# The queues that a worker consumes by default: where shops publish today, and where those before 2019 did.
# Older ones still used 'celery'; add it only if no other application on this broker consumes it.
QUEUES = [
    'ecommerce.fulfillment', 'ecommerce.email_marketing', 'ecommerce.default',
    'fulfillment', 'email_marketing',
]

# 'classic' declares the queues exactly as shops do, since RabbitMQ refuses a second declaration that differs; 'quorum'
# is for sites that control both sides, or whose virtual host makes every queue a quorum queue. The queues of parked
# messages and of reports get the same type, unless they already exist.
QUEUE_TYPE = 'classic'

# Where the worker publishes a task without a queue of its own.
DEFAULT_PRIORITY_QUEUE = 'ecommerce.default'
CELERY_DEFAULT_QUEUE = DEFAULT_PRIORITY_QUEUE
CELERY_DEFAULT_EXCHANGE = 'ecommerce'
CELERY_DEFAULT_ROUTING_KEY = 'ecommerce'

# --- The worker process ---------------------------------------------------------------------------------------------

# 'threads': the tasks wait for other services nearly all the time, so one process of many threads does the work of
# many processes in a fraction of the memory. 'prefork' and 'solo' are Celery's own.
WORKER_POOL = 'threads'

# The maximum number of tasks in one worker that call the same shop or vendor at the same time. With threads there are
# as many again for other services; with prefork this is the total number of child processes.
WORKER_CONCURRENCY = 32

# How many processes `ecommerce-worker worker` starts, each with its own connection and threads. One process uses
# one core, however many threads it has. 'auto' means one per processor. See docs/performance.rst.
WORKER_PROCESSES: int | str = 1

# How long a stopping worker waits for running tasks; unfinished messages are delivered again. Must be less than the
# time after which the supervisor kills it (docker stop: 10 s, Kubernetes: 30 s, systemd: 90 s).
SHUTDOWN_SECONDS: float = 25

# --- Health and metrics ---------------------------------------------------------------------------------------------

# A directory where each process writes its health every two seconds, for `python -m ecommerce_worker.health`, best in
# memory: an absolute path such as '/run/ecommerce-worker'. Empty: none. See docs/how-to/watch-its-health.rst.
HEALTH_DIR = ''

# A process whose main loop has not responded for this long counts as dead; one that waits for RabbitMQ or a database
# gets five minutes.
HEALTH_SECONDS: float = 45

# Where each process answers /livez, /readyz and /metrics over HTTP: host and port, such as '0.0.0.0:9464'. For several
# processes on one machine, use a range of ports such as '127.0.0.1:9464-9473': each takes the first free one. Empty:
# nowhere. See docs/reference/metrics.rst.
METRICS_ADDRESS = ''

# --- The ledger -----------------------------------------------------------------------------------------------------

# Publish a report of each run on RabbitMQ for the ledger: ids and reasons, no contents. False: no history is kept.
PUBLISH_FACTS = True

# The database of the ledger, as in Django. Only the recorder and the readers of the ledger use it; workers use none.
# PostgreSQL: {'default': {'ENGINE': 'django.db.backends.postgresql', 'NAME': …, 'USER': …, 'PASSWORD': …, 'HOST': …}}.
# See docs/how-to/keep-a-ledger.rst.
DATABASES: dict[str, dict[str, object]] = {
    'default': {
        'ENGINE': 'django.db.backends.sqlite3',
        # A file for SQLite; '~' is the home directory of the user who runs the recorder.
        'NAME': '~/.local/state/ecommerce-worker/ledger.sqlite3',
    },
}

# Days (not seconds) for which the ledger keeps finished records: attempts, fulfilled orders, the audit log.
LEDGER_KEEP_DAYS = 90

# Days (not seconds) for which it keeps the lines of enrolled orders: what was bought, and a pseudonym of the
# learner. A refund only considers other paid orders that are still kept (COVERED_BY: ledger).
LEDGER_KEEP_LINES_DAYS = 730

# Days (not seconds) after which the content of a message that is still parked is erased; it can then no longer be
# resent. 0 keeps it until a person has resent or discarded it.
LEDGER_KEEP_PARKED_DAYS = 0

# --- The console ----------------------------------------------------------------------------------------------------

# Where `ecommerce-worker console` listens: host and port. Loopback only, unless a proxy with TLS is in front of it.
# # See docs/how-to/use-the-console.rst.
CONSOLE_ADDRESS = '127.0.0.1:8130'

# The URL of the console, such as https://orders.example.com; other host names are refused. Empty:
# http://CONSOLE_ADDRESS. Without https it must be on this machine, since passwords would be sent unencrypted.
CONSOLE_URL = ''

# The address of a proxy in front of the console whose X-Forwarded-For is trusted (it must set or extend that header),
# such as 127.0.0.1. Empty: the header is ignored, and all users behind a proxy share one address for locked logins.
CONSOLE_PROXY = ''

# Signs sessions and links; at least 32 random bytes. Not set: one is generated and kept beside the ledger's file, or in
# ~/.local/state/ecommerce-worker. Consoles that share a ledger must share it.
CONSOLE_SECRET_KEY: str | None = None

# How long a login lasts.
CONSOLE_SESSION_SECONDS = 28_800

# --- The intake -----------------------------------------------------------------------------------------------------

# Shops whose signed webhooks `ecommerce-worker intake` accepts at /in/<name>, by a name of your choice; see
# docs/how-to/connect-your-own-shop.rst and its neighbours. An entry is a mapping of:
#   kind      'shopify', 'woocommerce', 'stripe', 'standard' (Standard Webhooks, Svix), 'hmac' (a MAC of the
#             body, in a header), 'submit' (our own interface, with a token), or the dotted path of a module of your own
#   secrets   one or more, any of which is accepted; a file:/path is read again if none matches
#   events    maps the sender's topics to tasks, such as {orders/paid: fulfill_order}; '*' is any topic
#   arguments   places of the task's arguments in the body, such as {order_number: data.number}, if the kind has none
#   source    shopify, woocommerce: the shop, such as myshop.myshopify.com; others are refused
#   learner   places of the learner's mail address; LEARNER if not given
#   site      the site code that the task is called with; one of SITE_OVERRIDES
#   queue     where the task is published; ecommerce.fulfillment if not given
#   state     'live'; 'dry' checks everything and publishes nothing; 'closed' behaves as if it did not exist;
#             'retired' answers 410, so that senders stop
#   test_orders   'ignore' or 'run' orders that the shop marks as tests
#   spool     true keeps deliveries on disk while RabbitMQ is unreachable: for senders that never retry (woocommerce)
#   max_bytes   maximum size of a body; 1 MiB if not given
#   rate      the maximum number of deliveries per second for one process; 0 (if not given) is no limit
#   api_key, api_secret   woocommerce, shopify, stripe (a key only): credentials of the shop's API, for
#             `ecommerce-worker reconcile` and for workers, which ask whether an order is still paid for; each
#             may be a file:/path
#   api_token   shopify: a token that does not change, instead of these
#   api_url   shopify, stripe: URL of that API, if it is not the usual one
#   report_back   true marks orders that are done in the shop: as fulfilled in shopify, as completed in woocommerce
#   header, prefix, encoding, digest, id, topic   hmac: how deliveries are signed, and the headers of id and topic
#   topic     standard: the place of the topic in the body; 'type' if not given
INTAKES: dict[str, dict[str, object]] = {}

# Where `ecommerce-worker intake` listens: host and port. Loopback only, unless a proxy with TLS is in front of it.
# Several processes may share it.
INTAKE_ADDRESS = '127.0.0.1:8087'

# The URL that shops post to, such as https://intake.example.com; shown by `intake list`. Empty:
# http://INTAKE_ADDRESS.
INTAKE_URL = ''

# RabbitMQ for the intake, with a user that may only publish. Not set: BROKER_URL.
INTAKE_BROKER_URL: str | list[str] | None = None

# The directory for deliveries that arrive while RabbitMQ is unreachable (spool: true); '~' is the home directory of the
# user who runs the intake.
INTAKE_SPOOL = '~/.local/state/ecommerce-worker/spool'

# --- Messages -------------------------------------------------------------------------------------------------------

# The worker publishes JSON only: pickled messages would break other services on a shared broker.
CELERY_TASK_SERIALIZER = 'json'
CELERY_RESULT_SERIALIZER = 'json'
CELERY_EVENT_SERIALIZER = 'json'

# The content types that are read. Shops still send pickle; the unpickler accepts plain values only and runs no code.
CELERY_ACCEPT_CONTENT = ['json', 'pickle']

# The modules that define the tasks.
CELERY_IMPORTS: tuple[str, ...] = (
    'ecommerce_worker.fulfillment.v1.tasks',
    'ecommerce_worker.enrolment.tasks',
    'ecommerce_worker.email.v1.api',
    'ecommerce_worker.sailthru.v1.tasks',
    'ecommerce_worker.schedule.v1.tasks',
    'ecommerce_worker.resubmit.tasks',
)

# The enabled extensions: third-party packages that provide tasks, settings and kinds of intake. An installed extension
# that is not listed here does nothing. Each has a queue of the same name, which is consumed unless QUEUES is set. See
# docs/how-to/write-an-extension.rst.
EXTENSIONS: list[str] = []

# Run tasks where they are called, without a broker: for tests.
CELERY_ALWAYS_EAGER = False

# Results are not kept: nothing reads them.
CELERY_RESULT_BACKEND: str | None = None

# --- Fulfilment -----------------------------------------------------------------------------------------------------

# The shop's API.
ECOMMERCE_API_ROOT = 'http://127.0.0.1:8002/api/v2/'

# Tries after the first when the shop refuses (404, 403, 500 …), 2**n seconds apart: 11 spread over 34 minutes. After
# that the order is parked.
MAX_FULFILLMENT_RETRIES = 11

# How long an order is tried while a service is down or busy, before it is parked: three days, a long weekend.
FULFILLMENT_GIVE_UP_AFTER: float = 259_200

# Minimum and maximum delay between two tries during an outage. The delay doubles, with jitter.
RETRY_DELAY_MIN: float = 1
RETRY_DELAY_MAX: float = 900

# Time-out for the answer to a fulfilment: the shop may spend 7 s on each line of the order, and an early second
# try would overlap the first. As with every request, this limits each pause; twice that limits the whole answer.
FULFILLMENT_READ_TIMEOUT: float = 30

# Time-outs for every other request: for the connection (just over 3 s, when TCP sends its first
# packet again), and for the answer.
HTTP_CONNECT_TIMEOUT: float = 3.05
HTTP_READ_TIMEOUT: float = 10

# A message that was with a worker when that worker died waits this long before it is tried again, so that a first try
# still in progress can end; after that many rounds it is parked as the likely cause.
REDELIVERY_DELAY: float = 30
REDELIVERY_LIMIT = 10

# Commands of Celery's remote control that workers obey, such as [revoke, enable_events], or [all]. Anyone who may
# publish on the virtual host can send them. Queries (celery inspect) are always answered.
REMOTE_CONTROL: list[str] = []

# Two messages of one order are never run at the same time: on one machine ('machine'), or on all machines whose workers
# consume ('cluster'), which costs two requests to RabbitMQ for each order. 'auto' does the latter as long as workers
# on more than one machine consume.
TURNS = 'auto'

# A run that lasts longer than this, a job longer than this beyond MANAGEMENT_COMMAND_TIMEOUT, is logged with its #
# stack, and its thread counts as lost (its child is killed). A worker that has lost a quarter of its threads exits with
# status 75, to be restarted by a supervisor. Must be more than 12 x HTTP_READ_TIMEOUT + 4 x FULFILLMENT_READ_TIMEOUT,
# which a fulfilment may normally take.
LONGEST_RUN: float = 600

# How often within an hour the parked messages of one order may be resent, from the console or by a command,
# according to the ledger and the message; 0: never.
RESENDS_PER_HOUR = 3

# --- Enrolment ------------------------------------------------------------------------------------------------------

# The LMS, for `enroll` and `revoke`: orders from an intake, with no Open edX shop in between. The worker logs
# in there with BACKEND_SERVICE_EDX_OAUTH2_KEY and _SECRET, whose user must be global staff. See
# docs/how-to/sell-courses.rst.
LMS_ROOT_URL = 'http://localhost:18000/'

# The courses of each product, by its SKU, each with the mode that is paid for. Quote course ids in YAML:
# {'PY101': [{'course': 'course-v1:edX+PY101+2027', 'mode': 'verified'}]}. Or a YAML file of such: 'file:/path'.
PRODUCTS: dict[str, list[dict[str, str]]] = {}

# Where an order has the learner's mail address: the first of these places that has one is used. 'property:<name>' is a
# field of the line, 'meta:<name>' one of the order, 'buyer' the address of the buyer. A field may contain
# several addresses, for several seats. An intake may have its own list, in its option `learner`.
LEARNER = ['property:email', 'meta:learner_email', 'buyer']

# What to do with a line whose product is not in PRODUCTS: 'park', or 'skip', for shops that sell T-shirts as well.
UNKNOWN_PRODUCT = 'park'

# What a refund does: 'unenroll', or 'audit', which keeps the course open to the learner without a certificate.
REFUND = 'unenroll'

# How to find out whether another paid order covers a refunded learner: 'ledger', which has all orders of this
# worker (it needs LEARNER_KEY, and workers that can reach the ledger); 'nothing': each learner buys a course once; or
# the dotted path of a module of your own, with a function covers(order_number, learner, course_id, site_code) that
# returns True or False. Empty: unknown, and the lines of refunds are parked until a person decides.
COVERED_BY = ''

# Key for pseudonyms of learners, by which console and `orders` find a learner's orders although the ledger has no mail
# addresses; at least 32 random characters, the same for all processes. Not set: learners are not found.
LEARNER_KEY: str | None = None

# The previous key, by which orders recorded with it are still found.
LEARNER_KEY_BEFORE: str | None = None

# True enrols in courses whose enrolment is closed, too.
FORCE_ENROLLMENT = False

# How long to wait for a learner without an account before the line is parked. The course is open to them as
# soon as they register; the mode that they paid for is set within hours of that.
LEARNER_GIVE_UP_AFTER: float = 7_776_000

# --- Authentication -------------------------------------------------------------------------------------------------

# 'oauth2': a token from the LMS (shops since 2022; the only way since Quince). 'jwt': a token signed by the worker
# itself. 'auto': the first if BACKEND_SERVICE_EDX_OAUTH2_KEY and _SECRET are set, else the second if JWT_SECRET_KEY is.
AUTHENTICATION = 'auto'

# The LMS's token service, and the worker's credentials there.
BACKEND_SERVICE_EDX_OAUTH2_PROVIDER_URL = 'http://localhost:18000/oauth2/'
BACKEND_SERVICE_EDX_OAUTH2_KEY = 'ecommerce-backend-service-key'
BACKEND_SERVICE_EDX_OAUTH2_SECRET: str | None = 'ecommerce-backend-service-secret'  # noqa: S105 - refused in production

# Signs the worker's own tokens; the shop must know it. At least 32 random bytes.
JWT_SECRET_KEY: str | None = None

# The issuer and the user name in the worker's own tokens.
JWT_ISSUER = 'ecommerce_worker'
ECOMMERCE_SERVICE_USERNAME = 'ecommerce_worker'

# True lets the worker start with the publicly known default secrets, or without one: for development only.
ALLOW_INSECURE_SECRETS = False

# --- Scheduled jobs -------------------------------------------------------------------------------------------------

# Scheduled jobs, by a name of your choice; see docs/how-to/run-scheduled-jobs.rst. `ecommerce-worker beat`
# publishes each job when it is due; a worker runs it. An entry is a mapping of:
#   task      the full name of a task
#   crontab   'minute hour day-of-month month day-of-week' in the time zone CELERY_TIMEZONE (UTC if not set); a day must
#             match both of its fields; or
#   interval  seconds, or '45s', '10m', '6h', '7d'; counted from 1970-01-01, so that all beats agree
#   args, kwargs   the task's arguments
#   queue     where it is published; DEFAULT_PRIORITY_QUEUE if not given
#   expires   seconds (or '10m') after which a job that no worker has begun is skipped; until the next one is
#             due, if not given. Its task must have an argument `not_after`
#   enabled   false disables an entry of another layer
# The jobs of a django-SHOP, as YAML:
#   MANAGEMENT_COMMANDS: [shop, rebuild_index, send_queued_mail]
#   SCHEDULE:
#     delete-expired-customers:
#       task: ecommerce_worker.schedule.v1.tasks.run_management_command
#       args: [shop, customers]
#       kwargs: {delete-expired: true}
#       crontab: '0 3 * * sun'
#     rebuild-search-index:
#       task: ecommerce_worker.schedule.v1.tasks.run_management_command
#       args: [rebuild_index]
#       kwargs: {noinput: true}
#       crontab: '0 10 * * *'
#     send-queued-mail:
#       task: ecommerce_worker.schedule.v1.tasks.run_management_command
#       args: [send_queued_mail]
#       interval: 1m
# Three entries are predefined. `resubmit`, which needs a beat, publishes orders that are paid and unfulfilled at the
# shop and missing in RabbitMQ. The recorder runs the other two without a beat: `retention` deletes expired records of
# the ledger (LEDGER_KEEP_DAYS), `housekeeping` optimizes its database, which locks SQLite for some seconds.
# `SCHEDULE: {resubmit: {enabled: false}}` disables an entry.
SCHEDULE: dict[str, dict[str, object]] = {
    'resubmit': {'task': 'ecommerce_worker.resubmit.tasks.resubmit_orders', 'interval': '10m'},
    'retention': {'task': 'ecommerce_worker.ledger.maintenance.retention', 'crontab': '30 3 * * *'},
    'housekeeping': {'task': 'ecommerce_worker.ledger.maintenance.housekeeping', 'crontab': '0 4 * * sun'},
}

# The file of beat's firings if there is no ledger, for beats of one machine; '~' is the home directory of their
# user. With a ledger (`ecommerce-worker migrate`) firings are stored there: beats of all machines that
# share it fire each job once.
SCHEDULE_STATE = '~/.local/state/ecommerce-worker/schedule.sqlite3'

# The Django project whose management commands may be run: its settings module, its directory (where manage.py is), and
# its Python. No directory: the project is installed. No Python: the worker's own.
DJANGO_PROJECT_SETTINGS = ''
DJANGO_PROJECT_DIRECTORY = ''
DJANGO_PROJECT_PYTHON = ''

# Environment variables for its commands, such as {'ECOMMERCE_CFG': '/etc/ecommerce.yml'}. Of the worker's variables
# they only get PATH, HOME and the like, so that none of them sees the broker's password; ${NAME} passes on another.
DJANGO_PROJECT_ENVIRONMENT: dict[str, str] = {}

# The management commands that may be run; a message that names any other command is parked.
MANAGEMENT_COMMANDS: list[str] = []

# A command that runs longer is killed. RabbitMQ closes the channel of a worker that holds a message for 30 minutes: for
# more than 1500, raise its consumer_timeout.
MANAGEMENT_COMMAND_TIMEOUT: float = 900

# Redis, whose messages run jobs before they are due: redis://:password@host:6379/0. Empty: off.
WAKE_UP_URL = ''

# The message that runs an entry of SCHEDULE early:
# {'send-queued-mail': {'channel': 'django-SHOP', 'message': 'send_queued_mail'}}.
# An empty message matches any. While Redis is unreachable, the schedule still applies.
WAKE_UP: dict[str, dict[str, object]] = {}

# --- Logging --------------------------------------------------------------------------------------------------------

# The minimum level of log lines: 'DEBUG', 'INFO', 'WARNING', 'ERROR' or 'CRITICAL'.
LOG_LEVEL = 'INFO'

# 'text' is for people; 'json' writes each line as an object, also of everything that processes print, and
# replaces the formatters of LOGGING. See docs/how-to/read-the-logs.rst.
LOG_FORMAT = 'text'

# For logging.config.dictConfig. Standard output only: containers, systemd and supervisor all read
# it, and a missing syslog would cost a traceback for every line. get_logger_config() can add
# a file or the syslog. LOG_LEVEL is the level of the root logger ''.
LOGGING = get_logger_config(debug=True)
LOGGING['handlers'].pop('local')
LOGGING['loggers']['']['level'] = LOG_LEVEL
LOGGING = without_missing_handlers(LOGGING)

# Celery does not change this logging.
CELERYD_HIJACK_ROOT_LOGGER = False

# --- Several shops --------------------------------------------------------------------------------------------------

# Settings that differ for the messages of one site: {'<site code>': {'ECOMMERCE_API_ROOT': 'https://…', …}}.
SITE_OVERRIDES: dict[str, dict[str, object]] = {}

# --- Mail -----------------------------------------------------------------------------------------------------------

# The mail vendor: 'braze', 'sailthru', 'smtp', 'sendgrid', 'outbox' (writes files), or the dotted path of a module
# of your own. Empty: Braze if BRAZE_ENABLE, else Sailthru if SAILTHRU_ENABLE, else see EMAIL_WITHOUT_VENDOR.
# See docs/how-to/send-mail.rst.
EMAIL_VENDOR = ''

# The vendor's options, such as {'host': 'mail.example.com', 'from_email': 'shop@example.com'} for smtp. Braze and
# Sailthru have settings of their own.
EMAIL_OPTIONS: dict[str, object] = {}

# What to do with mail if there is no vendor: 'refuse' (the worker does not start), 'park' (the mail is parked and
# can be resent once there is one), or 'outbox' (written to files: for development).
EMAIL_WITHOUT_VENDOR = 'park'

# How long a mail is tried while the vendor is down or busy, before it is parked; Braze and Sailthru count tries
# instead (BRAZE_RETRY_ATTEMPTS, SAILTHRU_RETRY_ATTEMPTS).
EMAIL_GIVE_UP_AFTER: float = 259_200

# Hosts that attachments may be linked to although they are not on the Internet, such as ['files.shop.lan']: for a
# development set-up. smtp, which downloads them, also needs EMAIL_OPTIONS: {allow_local_attachments: true}.
ATTACHMENT_HOSTS: list[str] = []

# A directory of templates (refund.html, usage.html) that replace those of the worker, for mail whose text
# is neither in the message nor stored by the vendor.
EMAIL_TEMPLATES = ''

# --- Mail through Braze ---------------------------------------------------------------------------------------------

BRAZE: dict[str, object] = {
    # True sends mail through Braze.
    'BRAZE_ENABLE': False,
    # The key of the REST API, and the identifier of the app (Braze's app_id).
    'BRAZE_REST_API_KEY': None,
    'BRAZE_WEBAPP_API_KEY': None,
    # The Braze instance, and its endpoints.
    'REST_API_URL': 'https://rest.iad-06.braze.com',
    'MESSAGES_SEND_ENDPOINT': '/messages/send',
    'EMAIL_BOUNCE_ENDPOINT': '/email/hard_bounces',
    'NEW_ALIAS_ENDPOINT': '/users/alias/new',
    'USERS_TRACK_ENDPOINT': '/users/track',
    'EXPORT_ID_ENDPOINT': '/users/export/ids',
    'CAMPAIGN_SEND_ENDPOINT': '/campaigns/trigger/send',
    # The sender, without a name: each mail has its own.
    'FROM_EMAIL': '<edx-for-business-no-reply@info.edx.org>',
    # The campaigns that mails belong to, and the variation of each; '' for none.
    'ENTERPRISE_CAMPAIGN_ID': '',
    'ENTERPRISE_CODE_ASSIGNMENT_CAMPAIGN_ID': '',
    'ENTERPRISE_CODE_UPDATE_CAMPAIGN_ID': '',
    'ENTERPRISE_CODE_USAGE_CAMPAIGN_ID': '',
    'ENTERPRISE_CODE_NUDGE_CAMPAIGN_ID': '',
    'ENTERPRISE_CODE_USAGE_API_TRIGGERED_CAMPAIGN_ID': '',
    'ENTERPRISE_CODE_ASSIGNMENT_MESSAGE_VARIATION_ID': '',
    'ENTERPRISE_CODE_UPDATE_MESSAGE_VARIATION_ID': '',
    'ENTERPRISE_CODE_USAGE_MESSAGE_VARIATION_ID': '',
    'ENTERPRISE_CODE_NUDGE_MESSAGE_VARIATION_ID': '',
    # Seconds between two tries, and the number of tries after the first.
    'BRAZE_RETRY_SECONDS': 3600,
    'BRAZE_RETRY_ATTEMPTS': 6,
}

# --- Mail and purchases through Sailthru ----------------------------------------------------------------------------

SAILTHRU: dict[str, object] = {
    # True reports purchases to Sailthru, and sends mail through it if Braze is off.
    'SAILTHRU_ENABLE': False,
    # The URL of its API.
    'SAILTHRU_API_URL': 'https://api.sailthru.com',
    # Credentials.
    'SAILTHRU_KEY': None,
    'SAILTHRU_SECRET': None,
    # Templates of the mails after an upgrade, a purchase, an enrolment, and for an abandoned cart; None: no mail.
    'SAILTHRU_UPGRADE_TEMPLATE': None,
    'SAILTHRU_PURCHASE_TEMPLATE': None,
    'SAILTHRU_ENROLL_TEMPLATE': None,
    'SAILTHRU_ABANDONED_CART_TEMPLATE': None,
    # Minutes (not seconds: Sailthru's own unit) after which a cart counts as abandoned.
    'SAILTHRU_ABANDONED_CART_DELAY': 60,
    # No effect since version 0.7: free courses are reported at zero. It may stay in older settings.
    'SAILTHRU_MINIMUM_COST': 100,
    # Seconds between two tries, and the number of tries after the first.
    'SAILTHRU_RETRY_SECONDS': 3600,
    'SAILTHRU_RETRY_ATTEMPTS': 6,
    # How long the description of a course is kept.
    'SAILTHRU_CACHE_TTL_SECONDS': 3600,
    # Template by kind of mail.
    'templates': {
        'course_refund': 'Course Refund',
        'assignment_email': 'Offer Assignment Email',
        'enterprise_portal_email': 'Enterprise Portal Email',
    },
}
