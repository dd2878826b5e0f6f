"""Export classes to folders, tables and the formats of other programs."""

from uic_plugin.export.write import KINDS, LINKING, export_classes

__all__ = ["KINDS", "LINKING", "export_classes"]
