"""Django's settings for the console's process: the ledger's, and what pages, logins and sessions need."""

from datetime import timedelta
from urllib.parse import urlsplit

from ecommerce_worker import runtime
from ecommerce_worker.console.address import url_of
from ecommerce_worker.console.keys import secret_key
from ecommerce_worker.ledger import settings as ledger

_settings = runtime.current().settings
_url = url_of(_settings)
_https = _url.startswith('https:')

DATABASES = ledger.DATABASES
USE_TZ, TIME_ZONE, USE_I18N = ledger.USE_TZ, ledger.TIME_ZONE, ledger.USE_I18N
FORMAT_MODULE_PATH = 'ecommerce_worker.console.formats'
LOGGING_CONFIG = ledger.LOGGING_CONFIG

# Our templates take precedence over those of the admin site.
INSTALLED_APPS = [
    *ledger.INSTALLED_APPS,
    'ecommerce_worker.console.apps.ConsoleConfig',
    'django.contrib.admin.apps.SimpleAdminConfig',
    'django.contrib.auth',
    'django.contrib.contenttypes',
    'django.contrib.sessions',
    'django.contrib.messages',
    'django.contrib.staticfiles',
    'axes',
]

MIDDLEWARE = [
    'django.middleware.security.SecurityMiddleware',
    'whitenoise.middleware.WhiteNoiseMiddleware',
    'ecommerce_worker.console.middleware.restricted',
    'django.contrib.sessions.middleware.SessionMiddleware',
    'django.middleware.common.CommonMiddleware',
    'django.middleware.csrf.CsrfViewMiddleware',
    'django.contrib.auth.middleware.AuthenticationMiddleware',
    'django.contrib.messages.middleware.MessageMiddleware',
    'django.middleware.clickjacking.XFrameOptionsMiddleware',
    # Must be last: it turns a locked login into the page that says so.
    'axes.middleware.AxesMiddleware',
]

ROOT_URLCONF = 'ecommerce_worker.console.urls'

TEMPLATES = [{
    'BACKEND': 'django.template.backends.django.DjangoTemplates',
    'APP_DIRS': True,
    'OPTIONS': {'context_processors': [
        'django.template.context_processors.request',
        'django.contrib.auth.context_processors.auth',
        'django.contrib.messages.context_processors.messages',
    ]},
}]

STATIC_URL = '/static/'
# Served from the packages themselves: no collectstatic.
WHITENOISE_USE_FINDERS = True
WHITENOISE_ALLOW_ALL_ORIGINS = False

SECRET_KEY = secret_key(_settings)
ALLOWED_HOSTS = [(urlsplit(_url).hostname or '').strip('[]')]
CSRF_TRUSTED_ORIGINS = [_url]
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = _https
SESSION_COOKIE_NAME, CSRF_COOKIE_NAME = 'console_session', 'console_csrf'
CSRF_COOKIE_HTTPONLY = True
CSRF_FAILURE_VIEW = 'ecommerce_worker.console.views.refused'
SESSION_COOKIE_AGE = _settings.CONSOLE_SESSION_SECONDS
SESSION_EXPIRE_AT_BROWSER_CLOSE = True
X_FRAME_OPTIONS = 'DENY'
SECURE_REFERRER_POLICY = 'same-origin'
# More than one page can show.
DATA_UPLOAD_MAX_NUMBER_FIELDS = 500

AUTHENTICATION_BACKENDS = ['axes.backends.AxesStandaloneBackend', 'django.contrib.auth.backends.ModelBackend']
AUTH_PASSWORD_VALIDATORS = [
    {'NAME': 'django.contrib.auth.password_validation.MinimumLengthValidator', 'OPTIONS': {'min_length': 12}},
    {'NAME': 'django.contrib.auth.password_validation.UserAttributeSimilarityValidator'},
    {'NAME': 'django.contrib.auth.password_validation.CommonPasswordValidator'},
]
LOGIN_URL = 'admin:login'
# How long a one-time link is valid, in seconds.
PASSWORD_RESET_TIMEOUT = 86_400

# Five wrong passwords lock a user name for the address that they came from, so that nobody can lock out others. Behind
# a proxy that CONSOLE_PROXY does not name, all requests come from one address.
AXES_FAILURE_LIMIT = 5
AXES_LOCKOUT_PARAMETERS = [['username', 'ip_address']]
# The server's view: only it decides which proxy headers to trust.
AXES_CLIENT_IP_CALLABLE = 'ecommerce_worker.console.address.client_of'
AXES_COOLOFF_TIME = timedelta(minutes=15)
AXES_RESET_COOL_OFF_ON_FAILURE_DURING_LOCKOUT = False
AXES_RESET_ON_SUCCESS = True
AXES_DISABLE_ACCESS_LOG = True
AXES_VERBOSE = False
AXES_LOCKOUT_TEMPLATE = 'console/locked.html'
