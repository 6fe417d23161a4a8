"""Rules that translate operators of an exported program, a family of them a file; `table.py` lists all."""
