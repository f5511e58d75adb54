"""The doctor: checks every step from a credential spec to a ticket, and names the first cause.

Runs in `credspec check`, as the user who calls (root sees most), and changes nothing.
`examination` runs the steps; the modules named ``..._steps`` have them.
"""
