"""Addresses to listen at, looked at before anything is loaded, so that one in use is found at once."""

import ipaddress
import resource
import socket
from typing import NamedTuple

from pipeline.core.errors import UserError


class Place(NamedTuple):
    """A resolved address."""

    family: socket.AddressFamily
    ip: str
    port: int
    """0: any that is free."""

    def __str__(self) -> str:
        return address_text((self.ip, self.port))

    @property
    def is_loopback(self) -> bool:
        """Whether only programs of this host reach it."""
        return ipaddress.ip_address(self.ip.partition("%")[0]).is_loopback


def address_text(address: tuple[str, int] | None) -> str:
    """Return an address as it is written; None is one that is not known."""
    if address is None:
        return ""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def resolve(host: str, port: int) -> Place:
    """Return the first address of ``host``.

    Raises:
        UserError: it has none.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, UnicodeError) as error:
        raise UserError(f"--host: got {host!r}, which is no address ({error})") from error
    return Place(family, str(address[0]), port)


def bind(place: Place, option: str) -> socket.socket:
    """Return a TCP socket bound to ``place``, which does not listen yet.

    Raises:
        UserError: it is in use, or not this host's; names ``option``.
    """
    bound = socket.socket(place.family, socket.SOCK_STREAM)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind((place.ip, place.port))
    except OSError as error:
        bound.close()
        raise cannot_listen(place, option, error.strerror) from error
    return bound


def cannot_listen(place: Place, option: str, why: object) -> UserError:
    """Return the error of an address that cannot be listened at."""
    return UserError(f"{option}: cannot listen at {place} ({why}); choose another, or 0 for any that is free")


OTHER_DESCRIPTORS = 64
"""Open files of a server beside its connections."""
TRANSPORTS = 2


def enough_descriptors(max_connections: int) -> int:
    """Return how many connections each transport can have, at most ``max_connections``.

    The process's limit on open files is raised as far as that needs and the system allows.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = TRANSPORTS * max_connections + OTHER_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        return max(1, min(max_connections, (soft - OTHER_DESCRIPTORS) // TRANSPORTS))
    return max_connections
