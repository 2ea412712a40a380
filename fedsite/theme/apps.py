from django.apps import AppConfig


class ThemeConfig(AppConfig):
    """Holds the Tailwind source; the built style sheet is static/css/app.css."""

    name = "fedsite.theme"
    label = "theme"
