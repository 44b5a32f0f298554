"""All settings, driven by the environment. Every variable is described in `docs/settings.md`.

Embedded (the default): SQLite, a broker on a private Unix socket, a secret key made on first use and kept in DATA_DIR.
Production (ENVIRONMENT=production): DATABASE_URL, REDIS_URL, SECRET_KEY and ALLOWED_HOSTS must be given.
"""

import hashlib
import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import django_stubs_ext
import environ
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy as _

# Lets `ModelForm[User]` and the like be written where code runs, not only where types are checked.
django_stubs_ext.monkeypatch()

BASE_DIR = Path(__file__).resolve().parent.parent
env = environ.FileAwareEnv()

ENVIRONMENT = env.str("ENVIRONMENT", "embedded")
if ENVIRONMENT not in ("embedded", "production"):
    raise ImproperlyConfigured(f"ENVIRONMENT is “{ENVIRONMENT}”; use “embedded” or “production”.")
PRODUCTION = ENVIRONMENT == "production"
DEBUG = env.bool("DEBUG", False)

DATA_DIR = Path(env.str("DATA_DIR", str(BASE_DIR / "data"))).resolve()


def _required(name: str) -> str:
    value: str = env.str(name, "")
    if not value:
        raise ImproperlyConfigured(f"Set {name}: production has no default for it. See docs/settings.md.")
    return value


def _kept_secret_key() -> str:
    """The key of this installation, made on first use and readable by its owner alone."""
    path = DATA_DIR / "secret_key"
    DATA_DIR.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        descriptor, temporary = tempfile.mkstemp(dir=DATA_DIR)  # 0600
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(50))
        # The file appears whole, and where two processes start at once the first one's key stays.
        with suppress(FileExistsError):
            os.link(temporary, path)
        os.unlink(temporary)
    return path.read_text().strip()


SECRET_KEY = _required("SECRET_KEY") if PRODUCTION else env.str("SECRET_KEY", "") or _kept_secret_key()
if PRODUCTION and len(SECRET_KEY) < 40:
    raise ImproperlyConfigured("SECRET_KEY is too short to be safe: use at least 40 random characters.")
ALLOWED_HOSTS = _required("ALLOWED_HOSTS").split(",") if PRODUCTION else ["127.0.0.1", "localhost", "[::1]"]
CSRF_TRUSTED_ORIGINS = env.list("CSRF_TRUSTED_ORIGINS", default=[])

INSTALLED_APPS = [
    "webapp",
    "labeling",
    "rlhf",
    "worker",
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django_htmx",
    "rest_framework",
    "rest_framework.authtoken",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "rules.apps.AutodiscoverRulesConfig",
    "axes",
    "auditlog",
]

MIDDLEWARE = [
    "django.middleware.security.SecurityMiddleware",
    "csp.middleware.CSPMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "webapp.middleware.AccountLanguage",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "auditlog.middleware.AuditlogMiddleware",
    "axes.middleware.AxesMiddleware",
]

ROOT_URLCONF = "webapp.urls"
ASGI_APPLICATION = "webapp.asgi.application"
WSGI_APPLICATION = "webapp.wsgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "django.template.context_processors.i18n",
            ]
        },
    }
]

# --- Database -------------------------------------------------------------------------------------------------------
DATABASE_URL = _required("DATABASE_URL") if PRODUCTION else env.str("DATABASE_URL", "")
EMBEDDED_DATABASE: dict[str, Any] = {"ENGINE": "webapp.sqlite3", "NAME": DATA_DIR / "db.sqlite3"}
DATABASES = {"default": env.db_url_config(DATABASE_URL) if DATABASE_URL else EMBEDDED_DATABASE}
if DATABASES["default"]["ENGINE"].endswith("sqlite3"):
    DATABASES["default"].update(
        # A file, so that live servers and worker processes of a test see the same rows.
        TEST={"NAME": str(Path(tempfile.gettempdir()) / f"nanochatgpt-test-{os.getpid()}.sqlite3")},
        OPTIONS={
            "transaction_mode": "IMMEDIATE",
            "timeout": 20,
            # FULL: a label that was acknowledged survives power loss.
            "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
        },
    )
# Above 0 only under a server with threads that live on (gunicorn's gthread): an ASGI server makes a thread for each
# request, and would leave a connection behind with each.
DATABASES["default"].update(CONN_HEALTH_CHECKS=bool(DATABASE_URL), CONN_MAX_AGE=env.int("CONN_MAX_AGE", 0))
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

# --- Broker: a doorbell; rows are the truth (worker/jobs.py) ---------------------------------------------------------
# A Unix socket's path may have 104 characters at most on some systems, so it does not live in DATA_DIR.
BROKER_SOCKET = (
    Path(env.str("XDG_RUNTIME_DIR", "") or tempfile.gettempdir())
    / f"nanochatgpt-{hashlib.sha256(str(DATA_DIR).encode()).hexdigest()[:10]}"
    / "broker.sock"
)
REDIS_URL = _required("REDIS_URL") if PRODUCTION else env.str("REDIS_URL", "")
CELERY_BROKER_URL = REDIS_URL or f"redis+socket://{BROKER_SOCKET}"
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None
# No second try when a page sends a message: the row waits, and the beat rings again.
CELERY_BROKER_TRANSPORT_OPTIONS = {"socket_connect_timeout": 2, "socket_timeout": 10, "max_retries": 0}
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_SERIALIZER = "json"
CELERY_ACCEPT_CONTENT = ["json"]
CELERY_TASK_ACKS_LATE = False
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_WORKER_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS = False
CELERY_WORKER_HIJACK_ROOT_LOGGER = False
# A job whose worker is silent for this long is given to another one.
JOB_LEASE_SECONDS = env.float("JOB_LEASE_SECONDS", 60.0)
# How many tokens, at most, the sampler works on at a time: more is faster in all, less shows the first set sooner.
SAMPLE_BATCH_TOKENS = env.int("SAMPLE_BATCH_TOKENS", 8192)
# What a sampler on a CPU multiplies with: int8 is faster and says nearly the same. Training never samples so.
SAMPLE_WEIGHTS = env.str("SAMPLE_WEIGHTS", "float32")
if SAMPLE_WEIGHTS not in ("float32", "int8"):
    raise ImproperlyConfigured(f"SAMPLE_WEIGHTS is “{SAMPLE_WEIGHTS}”; use “float32” or “int8”.")
# The name of a card that sampler and trainer share; they then take turns. Empty: no card, or a card for each.
SHARED_GPU = env.str("SHARED_GPU", "")
# How many processes torchrun spreads a training run over. 0: one for each card, or one.
TRAINING_PROCESSES = env.int("TRAINING_PROCESSES", 0)
CELERY_BEAT_SCHEDULE_FILENAME = str(DATA_DIR / "celerybeat-schedule")
CELERY_BEAT_SCHEDULE = {
    "mend jobs": {"task": "worker.tasks.mend", "schedule": 10.0, "options": {"expires": 10}},
    "run schedules": {"task": "worker.tasks.run_schedules", "schedule": 30.0, "options": {"expires": 30}},
    "expire exports": {"task": "worker.tasks.expire_exports", "schedule": 3600.0, "options": {"expires": 600}},
}

# --- People ---------------------------------------------------------------------------------------------------------
AUTH_USER_MODEL = "labeling.User"
AUTHENTICATION_BACKENDS = [
    "axes.backends.AxesStandaloneBackend",
    "rules.permissions.ObjectPermissionBackend",
    "django.contrib.auth.backends.ModelBackend",
]
PASSWORD_HASHERS = [
    "django.contrib.auth.hashers.Argon2PasswordHasher",
    "django.contrib.auth.hashers.PBKDF2PasswordHasher",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 12}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "login"
LOGIN_REDIRECT_URL = "home"
LOGOUT_REDIRECT_URL = "login"
AXES_FAILURE_LIMIT = 10
AXES_COOLOFF_TIME = 0.25
AXES_LOCKOUT_PARAMETERS = [["username", "ip_address"]]
AXES_RESET_ON_SUCCESS = True
AXES_VERBOSE = False
AXES_LOCKOUT_TEMPLATE = "locked_out.html"
# Anyone can write anything into the header it would come from.
AUDITLOG_DISABLE_REMOTE_ADDR = True
SESSION_COOKIE_AGE = 12 * 60 * 60
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = PRODUCTION
CSRF_FAILURE_VIEW = "webapp.views.csrf_failure"

# --- Security -------------------------------------------------------------------------------------------------------
SECURE_SSL_REDIRECT = env.bool("SECURE_SSL_REDIRECT", PRODUCTION)
SECURE_HSTS_SECONDS = 31_536_000 if PRODUCTION else 0
SECURE_HSTS_INCLUDE_SUBDOMAINS = SECURE_HSTS_PRELOAD = PRODUCTION
SECURE_REDIRECT_EXEMPT = [r"^healthz$", r"^readyz$"]
if env.bool("BEHIND_PROXY", False):
    SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
X_FRAME_OPTIONS = "DENY"
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": ["'self'"],
        "script-src": ["'self'"],
        "style-src": ["'self'"],
        "img-src": ["'self'", "data:"],
        "object-src": ["'none'"],
        "base-uri": ["'none'"],
        "frame-ancestors": ["'none'"],
        "form-action": ["'self'"],
    }
}
DATA_UPLOAD_MAX_MEMORY_SIZE = 2 * 1024 * 1024
MAX_IMPORT_BYTES = 10 * 1024 * 1024
# Webhooks go to public addresses over HTTPS alone. To try one on one's own machine: http://localhost, too.
WEBHOOKS_TO_LOCALHOST = env.bool("WEBHOOKS_TO_LOCALHOST", False)
MAX_COMPARISONS_BYTES = 512 * 1024 * 1024

# Counts API requests, for all server processes together. Where `manage.py up` did not start us (webapp/launcher.py:
# MARK) nobody shares, and there may be no broker.
SHARES_CACHE = PRODUCTION or "NANOCHATGPT_LAUNCHED_FOR" in os.environ
CACHE_URL = (REDIS_URL or f"unix://{BROKER_SOCKET}?db=1") if SHARES_CACHE else ""
CACHES = {
    "default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": CACHE_URL}
    if CACHE_URL
    else {"BACKEND": "django.core.cache.backends.locmem.LocMemCache"}
}

# --- Languages and files ----------------------------------------------------------------------------------------------
LANGUAGE_CODE = env.str("LANGUAGE_CODE", "en")
LANGUAGES = [("en", _("English")), ("ko", _("Korean"))]
LOCALE_PATHS = [BASE_DIR / "webapp" / "locale"]
TIME_ZONE = env.str("TIME_ZONE", "UTC")
USE_TZ = True
STATIC_URL = "static/"
STATIC_ROOT = BASE_DIR / "staticfiles"
MEDIA_ROOT = DATA_DIR
STORAGES = {
    "default": {"BACKEND": "django.core.files.storage.FileSystemStorage"},
    "staticfiles": {
        "BACKEND": "whitenoise.storage.CompressedManifestStaticFilesStorage"
        if PRODUCTION
        else "django.contrib.staticfiles.storage.StaticFilesStorage"
    },
}
WHITENOISE_USE_FINDERS = WHITENOISE_AUTOREFRESH = not PRODUCTION

# --- REST API ---------------------------------------------------------------------------------------------------------
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "webapp.tokens.DigestTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["webapp.api.JsonBody"],
    "DEFAULT_PAGINATION_CLASS": "webapp.api.Pages",
    "DEFAULT_SCHEMA_CLASS": "webapp.schema.Described",
    "DEFAULT_FILTER_BACKENDS": ["django_filters.rest_framework.DjangoFilterBackend"],
    "DEFAULT_THROTTLE_CLASSES": ["webapp.api.Throttle"],
    "DEFAULT_THROTTLE_RATES": {"user": env.str("API_RATE", "600/min")},
    "EXCEPTION_HANDLER": "webapp.refusals.refusal",
    "PAGE_SIZE": 50,
}
SPECTACULAR_SETTINGS = {
    "TITLE": "nanoChatGPT",
    "VERSION": "1",
    "DESCRIPTION": "Prompts, tasks, rankings, snapshots, training runs and models; the same roles as on the pages.",
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": f"/{STATIC_URL}favicon.svg",
    "SERVE_PERMISSIONS": ["rest_framework.permissions.IsAuthenticated"],
    "SCHEMA_PATH_PREFIX": "/api/",
    "SWAGGER_UI_SETTINGS": {"deepLinking": True, "defaultModelsExpandDepth": 0},
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_NAME_OVERRIDES": {"JobStateEnum": "worker.jobs.Job.State"},  # of exports and training runs alike
}

LOGGING = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {"line": {"format": "{asctime} {levelname} {name}: {message}", "style": "{"}},
    "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
    "root": {"handlers": ["console"], "level": env.str("LOG_LEVEL", "INFO")},
}
