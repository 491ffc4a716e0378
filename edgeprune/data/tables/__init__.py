"""Rows and windows of CSV and Parquet files."""
