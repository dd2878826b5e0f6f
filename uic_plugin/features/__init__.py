"""Features of frozen networks, computed once and kept in files."""
