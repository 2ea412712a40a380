#!/usr/bin/env python
"""Django's command line for fedsite."""

import os
import sys

if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "fedsite.settings")
    from fedsite.shell import main

    main(sys.argv)
