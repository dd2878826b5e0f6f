"""`python -m uic_plugin.cli`, the same as `uic`."""

from uic_plugin.cli import main

main()
