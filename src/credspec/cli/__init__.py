"""The commands, run by people: thin, they parse, call the packages below, and print.

A process for each call, as the user who calls; `credspec setup`, `check` and `lab` want root.
"""
