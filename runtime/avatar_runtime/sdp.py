"""Repairs of a client's SDP offer. Pure text."""

_END = "a=end-of-candidates"


def repair_offer(sdp: str) -> str:
    """Return the offer without mDNS candidates, and with ``a=end-of-candidates`` exactly where it is true.

    Offers come complete (there is no trickle route), but browsers do not always say so, and without that line
    the ICE agent never reports a failure. Names ending in ``.local`` cannot be resolved in a pod. They are
    dropped, because the browser's own checks reveal its address (peer-reflexive). Then the list is not at its
    end: with the line, an agent that knows no candidate fails at once instead of waiting for those checks.
    """
    result: list[str] = []
    for number, section in enumerate(_sections(sdp)):
        if number == 0:
            result += section
            continue
        lines = [line for line in section if not _is_mdns(line) and line != _END]
        complete = len(lines) + (_END in section) == len(section)
        known = any(line.startswith("a=candidate:") for line in lines)
        result += [*lines, _END] if complete and known else lines
    return "".join(line + "\r\n" for line in result)


def has_media(sdp: str) -> bool:
    """Tell whether the offer asks for audio or video at all."""
    return any(line.startswith(("m=audio ", "m=video ")) for line in sdp.splitlines())


def _sections(sdp: str) -> list[list[str]]:
    sections: list[list[str]] = [[]]
    for line in sdp.splitlines():
        if line.startswith("m="):
            sections.append([])
        if line:
            sections[-1].append(line)
    return sections


def _is_mdns(line: str) -> bool:
    if not line.startswith("a=candidate:"):
        return False
    parts = line.split()
    return len(parts) > 4 and parts[4].lower().endswith(".local")
