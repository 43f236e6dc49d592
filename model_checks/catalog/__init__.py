"""The catalog's specification beside its implementation: commands for both, and their states row by row."""
