"""The page of classes: one folder that opens in any browser, from the disk, without a server."""

from uic_plugin.report.page.projection import describe_map
from uic_plugin.report.page.write import PAGE_FILE, PageOptions, write_class_page

__all__ = ["PAGE_FILE", "PageOptions", "describe_map", "write_class_page"]
