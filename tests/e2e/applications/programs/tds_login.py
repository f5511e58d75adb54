"""Log on to a TDS endpoint by hand: tds_login.py HOST SPN sound|forged|none; prints its answer."""

import socket
import struct
import sys

import gssapi

host, spn, kind = sys.argv[1:]


def exchange(connection: socket.socket, kind: int, data: bytes) -> bytes:
    connection.sendall(struct.pack(">BBHHBB", kind, 1, len(data) + 8, 0, 1, 0) + data)
    return receive(connection)


def receive(connection: socket.socket) -> bytes:
    header = connection.recv(8, socket.MSG_WAITALL)
    (length,) = struct.unpack(">H", header[2:4])
    return connection.recv(length - 8, socket.MSG_WAITALL)


def login(token: bytes) -> bytes:
    """LOGIN7 with nothing but the token."""
    fixed = bytearray(94)
    struct.pack_into("<III", fixed, 0, 94 + len(token), 0x74000004, 4096)
    fixed[25] = 0x80 if token else 0
    for position in range(36, 72, 4):
        struct.pack_into("<HH", fixed, position, 94, 0)
    struct.pack_into("<HHHHHHI", fixed, 78, 94, len(token), 94, 0, 94, 0, 0)
    return bytes(fixed) + token


name = gssapi.Name(spn, gssapi.NameType.kerberos_principal)
token = gssapi.SecurityContext(name=name, usage="initiate").step()
if kind == "forged":
    # A bit near the end: inside what the KDC's key and ours have sealed.
    token = token[:-20] + bytes([token[-20] ^ 1]) + token[-19:]
if kind == "none":
    token = b""
with socket.create_connection((host, 1433), timeout=30) as connection:
    exchange(connection, 0x12, bytes.fromhex("00000b0006 010011 0001 ff 000000000000 02"))
    answer = exchange(connection, 0x10, login(token))
    if answer[:1] == b"\xed":
        answer = receive(connection)
    if answer[:1] == b"\xaa":
        number, _, _, length = struct.unpack_from("<IBBH", answer, 3)
        print(number, answer[11 : 11 + 2 * length].decode("utf-16-le"))
    else:
        print("logged on" if answer[:1] == b"\xe3" else answer.hex())
