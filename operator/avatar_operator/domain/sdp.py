"""SDP on its way between peer and runtime: answers with addresses that peers reach, offers that end. Pure text.

A pod behind hostPorts or a 1:1 NAT knows only its own address and puts that
into its host candidates; the ports are right. Peers need the address of the
node, or of the NAT, in its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address

_CANDIDATE = "a=candidate:"
_END = "a=end-of-candidates"
_PRIORITY = re.compile("[0-9]{1,10}")
_KINDS = {4: "IP4", 6: "IP6"}
# Further addresses of one socket come after the first: one step of ICE's local preference.
_STEP = 1 << 8

Address = IPv4Address | IPv6Address


def rewritten(answer: str, addresses: Sequence[str]) -> str:
    """``answer`` with ``addresses`` in place of the private ones; the same text when there are none.

    Each host candidate with a private address becomes one candidate for each
    of ``addresses`` of its family (none of its family: it stays as it is), the
    addresses in ``c=`` and ``o=`` lines the first of their family. Server
    reflexive and relay candidates stay. Sections whose candidates nobody says
    are complete get ``a=end-of-candidates``: an answer is never trickled.

    Doing it twice is the same as doing it once. Raises ValueError when one of
    ``addresses`` is not an IP address (a name has to be resolved before).
    """
    if not addresses:
        return answer
    told = [ip_address(a) for a in addresses]
    end = "\r\n" if "\r\n" in answer else "\n"
    head, *media = _sections(answer.replace("\r\n", "\n").split("\n"))
    complete = _END in head
    lines = [_connection(line, told) for line in head]
    for section in media:
        lines += _section(section, told, complete=complete)
    return end.join(lines)


def completed(offer: str) -> str:
    """``offer`` as an ICE agent without trickle can use it.

    Sections with candidates get ``a=end-of-candidates`` where it is missing:
    without it aioice never gives up. Candidates hidden behind mDNS names go, as
    nobody outside of the peer's own network can look them up; the peer's checks
    reveal its address, so such a section is not at its end.
    """
    head, *media = _sections(offer.replace("\r\n", "\n").split("\n"))
    lines = head
    for section in media:
        kept = [line for line in section if not _is_mdns(line)]
        if len(kept) < len(section):
            kept = [line for line in kept if line != _END]
        elif _END not in head and _END not in kept:
            places = [n for n, line in enumerate(kept) if line.startswith(_CANDIDATE)]
            if places:
                kept.insert(places[-1] + 1, _END)
        lines = lines + kept
    return "\r\n".join(lines)


def _is_mdns(line: str) -> bool:
    parts = line.split(" ")
    return line.startswith(_CANDIDATE) and len(parts) > 4 and parts[4].lower().endswith(".local")


def _sections(lines: list[str]) -> list[list[str]]:
    """The lines before the first ``m=``, then those of each media section."""
    sections: list[list[str]] = [[]]
    for line in lines:
        if line.startswith("m="):
            sections.append([])
        sections[-1].append(line)
    return sections


def _section(section: list[str], told: list[Address], *, complete: bool) -> list[str]:
    result: list[str] = []
    seen: set[tuple[str, ...]] = set()
    last = 0
    for line in section:
        if not line.startswith(_CANDIDATE):
            result.append(_connection(line, told))
            continue
        for candidate in _candidates(line, told):
            parts = candidate.split(" ")
            where = (*parts[1:3], *parts[4:8])
            # Sockets on several private addresses may have the same port: that is one place outside.
            if candidate == line or where not in seen:
                result.append(candidate)
            seen.add(where)
        last = len(result)
    if last and not complete and _END not in section:
        result.insert(last, _END)
    return result


def _candidates(line: str, told: list[Address]) -> list[str]:
    """What stands for the candidate in ``line``: itself, or one for each address."""
    # a=candidate:<foundation> <component> <transport> <priority> <address> <port> typ <type> …
    parts = line.split(" ")
    if len(parts) < 8 or parts[6:8] != ["typ", "host"] or not _PRIORITY.fullmatch(parts[3]):
        return [line]
    family = [str(a) for a in _instead_of(parts[4], told)]
    if not family:
        return [line]
    priority = int(parts[3])
    return [
        " ".join([*parts[:3], str(max(1, priority - i * _STEP)), address, *parts[5:]])
        for i, address in enumerate(family)
    ]


def _connection(line: str, told: list[Address]) -> str:
    """A ``c=`` or ``o=`` line with the first address of its family; other lines as they are."""
    if not line.startswith(("c=IN IP", "o=")):
        return line
    before, _, address = line.rpartition(" ")
    family = _instead_of(address, told)
    if not family or not before.endswith(f" {_KINDS[family[0].version]}"):
        return line
    return f"{before} {family[0]}"


def _instead_of(text: str, told: list[Address]) -> list[Address]:
    """The addresses to tell in place of ``text``; none when it is no private address, or already one of them."""
    try:
        own = ip_address(text)
    except ValueError:
        # A name hidden behind mDNS, or nothing that anybody understands.
        return []
    private = not (own.is_global or own.is_unspecified or own.is_loopback or own.is_link_local or own.is_multicast)
    if not private or own in told:
        return []
    return [a for a in told if a.version == own.version]
