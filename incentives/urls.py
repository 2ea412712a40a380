"""Pages of the ledger, under /ledger/."""

from django.urls import path

from incentives import views

app_name = "ledger"
urlpatterns = [
    path("", views.ledger, name="ledger"),
    path("state/", views.state, name="state"),
    path("export/", views.export, name="export"),
    path("transactions/<str:name>/<int:sequence>/", views.transaction, name="transaction"),
]
