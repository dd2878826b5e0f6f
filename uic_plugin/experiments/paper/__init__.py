"""The paper's tables, run and printed: `uic paper table1`."""
