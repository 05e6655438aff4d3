"""Where hosts meet: the endpoint, the address behind it, and the network interface that leads there."""

import errno
import fcntl
import os
import socket
import struct

from pipeline.core.errors import UserError

KEY = "execution.hosts.endpoint"
SIOCGIFADDR = 0x8915  # of Linux's ioctl: the IPv4 address of an interface
BACKLOG = 64


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Return host and port of ``endpoint``, HOST:PORT; see ``pipeline.training.settings.check_endpoint``."""
    host, _, port = endpoint.rpartition(":")
    return host, int(port)


def own_address(endpoint: str) -> str:
    """Return the IPv4 address of this host that ``endpoint``, of the head, names.

    Raises:
        UserError: it names none, one of another host, or one that no other host reaches.
    """
    host, _ = split_endpoint(endpoint)
    try:
        address = str(socket.getaddrinfo(host, None, socket.AF_INET)[0][4][0])
    except OSError as error:
        raise UserError(
            f"{KEY}: {host} has no IPv4 address ({error.strerror or error}); give the name or address of this host"
        ) from error
    if address.startswith("127.") and host not in {"localhost", address}:
        raise UserError(
            f"{KEY}: {host} is {address} on this host (/etc/hosts), which no other reaches; give its address "
            "in the network"
        )
    if address == "0.0.0.0":  # noqa: S104  (refused)
        raise UserError(f"{KEY}: got {host}, which is no address that others can call; give this host's")
    with socket.socket(socket.AF_INET) as probe:
        try:
            probe.bind((address, 0))
        except OSError as error:
            raise UserError(
                f"{KEY}: {host} ({address}) is no address of this host; DVC runs on the host that it names"
            ) from error
    return address


def require_free(endpoint: str) -> None:
    """Raise UserError where a head could not listen at ``endpoint`` now: what there is to say of it, said at once.

    Nothing listens meanwhile: a host that calls would take it for a head that is gone at once.
    """
    _bound(own_address(endpoint), split_endpoint(endpoint)[1], backlog=None).close()


def listen(address: str, port: int) -> socket.socket:
    """Return a socket that listens at ``address`` alone, not at the host's other ones.

    Raises:
        UserError: the port is taken, or not for this user.
    """
    return _bound(address, port, backlog=BACKLOG)


def _bound(address: str, port: int, *, backlog: int | None) -> socket.socket:
    """Return a socket at ``address`` and ``port``, which listens where there is a ``backlog``."""
    bound = socket.socket(socket.AF_INET)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind((address, port))
        if backlog is not None:
            bound.listen(backlog)
    except OSError as error:
        bound.close()
        if error.errno not in {errno.EADDRINUSE, errno.EACCES}:
            raise
        why = (
            "in use: by another training that waits there, or another program"
            if error.errno == errno.EADDRINUSE
            else "not for this user"
        )
        raise UserError(f"{KEY}: port {port} of this host is {why}; give another one") from error
    return bound


def interface_of(address: str) -> str | None:
    """Return the name of the network interface with the IPv4 ``address``; None where it cannot be told."""
    wanted = socket.inet_aton(address)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        for _, name in socket.if_nameindex():
            try:
                found = fcntl.ioctl(asking.fileno(), SIOCGIFADDR, struct.pack("256s", os.fsencode(name)[:15]))
            except OSError:  # it has no IPv4 address
                continue
            if found[20:24] == wanted:
                return name
    return None
