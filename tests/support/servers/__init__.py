"""Servers that the code under test talks to: cloud services, secret stores, SQL Server."""
