"""Mutation testing: do the unit tests notice when a line of a module is wrong?"""
