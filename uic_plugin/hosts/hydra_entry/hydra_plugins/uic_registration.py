"""Makes `method=uic` known to solo-learn's own scripts, without a change to them.

Hydra imports the modules of this namespace package when an app starts, after the app's own
imports: a program that has not imported solo-learn's methods by then is left alone.
"""

import sys

if "solo.methods" in sys.modules:
    from uic_plugin.hosts import register

    register()
