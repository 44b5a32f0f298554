"""Every address of the site; pages of an app stand in the app's own `urls.py`."""

from django.contrib import admin
from django.contrib.auth import views as auth_views
from django.contrib.auth.decorators import login_required
from django.urls import include, path
from django.views.decorators.http import require_safe
from django.views.i18n import JavaScriptCatalog
from drf_spectacular.views import SpectacularJSONAPIView, SpectacularSwaggerSplitView

from webapp import health, views

urlpatterns = [
    path("", views.home, name="home"),
    path("login/", auth_views.LoginView.as_view(authentication_form=views.LoginForm), name="login"),
    path("logout/", auth_views.LogoutView.as_view(), name="logout"),
    path("preferences/", views.preferences, name="preferences"),
    path("preferences/password/", views.change_password, name="change_password"),
    path("preferences/token/", views.make_token, name="make_token"),
    path("preferences/token/revoke/", views.drop_token, name="drop_token"),
    path("language/", views.choose_language, name="choose_language"),
    path("jsi18n/", JavaScriptCatalog.as_view(), name="javascript-catalog"),
    path("admin/login/", views.admin_login, name="admin_login"),
    path("admin/", admin.site.urls),
    path(
        "api/",
        require_safe(login_required(SpectacularSwaggerSplitView.as_view(template_name="api_docs.html"))),
        name="api_docs",
    ),
    path("api/schema/", SpectacularJSONAPIView.as_view(), name="schema"),
    path("api/", include("labeling.api.urls")),
    path("api/", include("rlhf.api")),
    path("favicon.ico", views.favicon, name="favicon"),
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("", include("labeling.urls")),
]
