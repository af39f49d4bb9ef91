"""The numbers that papers print: one CSV file a table, read by `numbers`."""
