"""Answers rewritten for peers that reach a pod by another address than its own."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_operator.domain.sdp import rewritten

HOST = "a=candidate:0cc2 1 udp 2130706431 10.42.0.7 50003 typ host"
HOST6 = "a=candidate:0cc6 1 udp 2130706431 fd00:42::7 50004 typ host"
REFLEXIVE = "a=candidate:9d1f 1 udp 1694498815 198.51.100.9 61200 typ srflx raddr 10.42.0.7 rport 50003"
RELAY = "a=candidate:77aa 1 udp 16777215 10.1.1.1 49200 typ relay raddr 10.42.0.7 rport 50003"
END = "a=end-of-candidates"


def answer(*lines: str, head: tuple[str, ...] = ()) -> str:
    """An answer like aiortc's with ``lines`` in its one media section."""
    start = ["v=0", "o=- 3951 3951 IN IP4 0.0.0.0", "s=-", "t=0 0", "a=group:BUNDLE 0", *head]
    media = ["m=video 50003 UDP/TLS/RTP/SAVPF 97", "c=IN IP4 10.42.0.7", "a=sendonly", "a=mid:0"]
    return "".join(f"{line}\r\n" for line in [*start, *media, *lines, "a=ice-ufrag:abcd", "a=setup:active"])


def candidates(sdp: str) -> list[str]:
    return [line for line in sdp.splitlines() if line.startswith("a=candidate:")]


@pytest.mark.parametrize(
    ("given_lines", "addresses", "told"),
    [
        # A node's address in place of the pod's; the port and everything else as it was.
        ([HOST], ["203.0.113.5"], [HOST.replace("10.42.0.7", "203.0.113.5")]),
        # A node's address may be private itself.
        ([HOST], ["192.168.1.20"], [HOST.replace("10.42.0.7", "192.168.1.20")]),
        # Each family by its own kind; what nobody named an address for stays.
        ([HOST, HOST6], ["203.0.113.5"], [HOST.replace("10.42.0.7", "203.0.113.5"), HOST6]),
        (
            [HOST, HOST6],
            ["2a00:1::5", "203.0.113.5"],
            [HOST.replace("10.42.0.7", "203.0.113.5"), HOST6.replace("fd00:42::7", "2a00:1::5")],
        ),
        # One socket, two addresses: the second comes after the first.
        (
            [HOST],
            ["203.0.113.5", "192.168.1.20"],
            [
                HOST.replace("10.42.0.7", "203.0.113.5"),
                HOST.replace("10.42.0.7", "192.168.1.20").replace("2130706431", str(2130706431 - 256)),
            ],
        ),
        # Shared address space (RFC 6598), where some clouds put pods.
        ([HOST.replace("10.42.0.7", "100.64.3.4")], ["203.0.113.5"], [HOST.replace("10.42.0.7", "203.0.113.5")]),
        # Not ours to change.
        ([REFLEXIVE, RELAY], ["203.0.113.5"], [REFLEXIVE, RELAY]),
        ([HOST.replace("10.42.0.7", "8.8.8.8")], ["203.0.113.5"], [HOST.replace("10.42.0.7", "8.8.8.8")]),
        ([HOST.replace("10.42.0.7", "127.0.0.1")], ["203.0.113.5"], [HOST.replace("10.42.0.7", "127.0.0.1")]),
        ([HOST.replace("10.42.0.7", "x.local")], ["203.0.113.5"], [HOST.replace("10.42.0.7", "x.local")]),
        (["a=candidate:odd"], ["203.0.113.5"], ["a=candidate:odd"]),
        # Two private addresses with the same port are one place outside.
        (
            [HOST, HOST.replace("10.42.0.7", "172.17.0.1")],
            ["203.0.113.5"],
            [HOST.replace("10.42.0.7", "203.0.113.5")],
        ),
    ],
)
def test_host_candidates_are_told_by_the_addresses(
    given_lines: list[str], addresses: list[str], told: list[str]
) -> None:
    assert candidates(rewritten(answer(*given_lines, END), addresses)) == told


def test_without_addresses_nothing_changes() -> None:
    """Not even what is missing is added: nobody asked."""
    for sdp in (answer(HOST), answer(HOST, END), "", "v=0\nm=audio 9 x"):
        assert rewritten(sdp, []) == sdp


def test_connection_and_origin_lines_follow() -> None:
    sdp = answer(HOST, END).replace("IN IP4 0.0.0.0", "IN IP4 10.42.0.7")
    told = rewritten(sdp, ["2a00:1::5", "203.0.113.5"]).splitlines()
    assert "o=- 3951 3951 IN IP4 203.0.113.5" in told
    assert "c=IN IP4 203.0.113.5" in told
    # Unspecified means nothing: it stays.
    assert "o=- 3951 3951 IN IP4 0.0.0.0" in rewritten(answer(HOST, END), ["203.0.113.5"]).splitlines()
    six = answer(HOST6, END).replace("c=IN IP4 10.42.0.7", "c=IN IP6 fd00:42::7")
    assert "c=IN IP6 2a00:1::5" in rewritten(six, ["2a00:1::5"]).splitlines()
    assert "c=IN IP6 fd00:42::7" in rewritten(six, ["203.0.113.5"]).splitlines()


def test_the_end_of_candidates_is_said_where_it_was_not() -> None:
    lines = rewritten(answer(HOST, REFLEXIVE), ["203.0.113.5"]).splitlines()
    assert lines[lines.index(REFLEXIVE) + 1] == END
    assert rewritten(answer(HOST, END), ["203.0.113.5"]).count(END) == 1
    # Said once for all sections; and a section without candidates has no end of them.
    assert rewritten(answer(HOST, head=(END,)), ["203.0.113.5"]).count(END) == 1
    assert END not in rewritten(answer(), ["203.0.113.5"])


def test_line_ends_stay_as_they_are() -> None:
    sdp = answer(HOST, END)
    told = rewritten(sdp, ["203.0.113.5"])
    assert told.endswith("a=setup:active\r\n")
    assert told.count("\r\n") == sdp.count("\r\n") == told.count("\n")
    assert "\r" not in rewritten(sdp.replace("\r\n", "\n"), ["203.0.113.5"])


def test_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"avatars\.example\.org"):
        rewritten(answer(HOST), ["avatars.example.org"])


# ---- properties ------------------------------------------------------------------------

IPS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
PORTS = st.integers(1, 65535)


@st.composite
def candidate_lines(draw: st.DrawFn) -> str:
    kind = draw(st.sampled_from(["host", "host", "srflx raddr 10.0.0.1 rport 5", "relay raddr 0.0.0.0 rport 9"]))
    address = draw(st.one_of(IPS, st.just("0f1e.local"), st.just("10.42.0.7"), st.just("fd00::7")))
    return f"a=candidate:{draw(PORTS)} 1 udp {draw(st.integers(0, 2**31 - 1))} {address} {draw(PORTS)} typ {kind}"


@given(st.lists(candidate_lines(), max_size=6), st.lists(IPS, min_size=1, max_size=3), st.booleans())
def test_what_holds_for_every_answer(lines: list[str], addresses: list[str], ended: bool) -> None:
    sdp = answer(*lines, *([END] if ended else []))
    told = rewritten(sdp, addresses)
    assert rewritten(told, addresses) == told, "twice is once"
    others = [line for line in lines if " typ host" not in line]
    assert [line for line in candidates(told) if " typ host" not in line] == others
    families = {ip_address(a).version for a in addresses}
    for line in candidates(told):
        if " typ host" in line and not line.split()[4].endswith(".local"):
            address = ip_address(line.split()[4])
            if str(address) in ("10.42.0.7", "fd00::7") and str(address) not in addresses:
                assert address.version not in families, "a private address is told only where there is no other"
    assert {line.split()[5] for line in candidates(told)} == {line.split()[5] for line in lines}, "ports stay"
    rest = [line for line in told.splitlines() if not line.startswith(("a=candidate:", "a=end", "c="))]
    assert rest == [line for line in sdp.splitlines() if not line.startswith(("a=candidate:", "a=end", "c="))]


@given(st.text(), st.lists(IPS, max_size=2))
def test_no_text_is_too_odd(text: str, addresses: list[str]) -> None:
    rewritten(text, addresses)
    rewritten(answer(text), addresses)
