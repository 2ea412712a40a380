from django.apps import AppConfig


class FedsiteConfig(AppConfig):
    name = "fedsite"
