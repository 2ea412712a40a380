"""Pages about oneself. The names are the ones that Django's own views and mails look for."""

from django.contrib.auth.decorators import login_not_required
from django.contrib.auth.views import LogoutView
from django.urls import path

from people import views

urlpatterns = [
    path("account/", views.account, name="account"),
    path("account/tokens/", views.create_token, name="create_token"),
    path("account/tokens/<int:token_id>/revoke/", views.revoke_token, name="revoke_token"),
    path("account/password/", views.change_password, name="password_change"),
    path("account/password/changed/", views.password_changed, name="password_change_done"),
    path("accounts/login/", views.sign_in, name="login"),
    path("accounts/logout/", login_not_required(LogoutView.as_view()), name="logout"),
    path("accounts/reset/", views.reset_password, name="password_reset"),
    path("accounts/reset/sent/", views.reset_sent, name="password_reset_done"),
    path("accounts/reset/<uidb64>/<token>/", views.choose_password, name="password_reset_confirm"),
    path("accounts/reset/set/", views.password_set, name="password_reset_complete"),
]
