"""The page of classes: one folder that opens in any browser, from the disk, without a server."""

from uic_plugin.report.page.projection import describe_map
from uic_plugin.report.page.write import PAGE_FILE, PageOptions, check_folder, write_class_page

__all__ = ["PAGE_FILE", "PageOptions", "check_folder", "describe_map", "write_class_page"]
