"""Renames the service of a ticket: ``rename_service.py CACHE FROM TO NEW-CACHE``.

The server's name is not sealed, neither in a credential cache nor in a ticket (RFC 4120 5.3).
"""

import pathlib
import struct
import sys


def counted(text: str) -> bytes:
    return struct.pack(">I", len(text)) + text.encode()


cache, old, new, target = sys.argv[1:]
old_class, old_host = old.split("/")
new_class, new_host = new.split("/")
data = pathlib.Path(cache).read_bytes()
renamed = data.replace(
    counted(old_class) + counted(old_host), counted(new_class) + counted(new_host)
)
if renamed == data:
    sys.exit("no such ticket")
if len(old_class) == len(new_class):
    # In the ticket, too: there the text has a length of one byte before it.
    tag = struct.pack("BB", 0x1B, len(old_class))
    renamed = renamed.replace(tag + old_class.encode(), tag + new_class.encode())
path = pathlib.Path(target)
path.write_bytes(renamed)
path.chmod(0o600)
