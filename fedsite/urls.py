"""Where everything is."""

from django.contrib import admin
from django.urls import include, path

from fedsite import views
from fedsite.api import api

urlpatterns = [
    path("", include("simulations.urls")),
    path("ledger/", include("incentives.urls")),
    path("api/", api.urls),
    path("", include("people.urls")),
    path("admin/login/", views.admin_sign_in),  # one door, with one lock
    path("admin/", admin.site.urls),
    path("healthz", views.healthz),
    path("readyz", views.readyz),
    path("metrics", views.metrics),
]
