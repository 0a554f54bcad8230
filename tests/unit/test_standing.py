"""Which findings count from one look to the next, and what is said of them."""

from __future__ import annotations

from datetime import timedelta

from avatar_operator.domain.findings import Finding, ObjectRef
from avatar_operator.domain.standing import NAMED, Change, Standing, inconsistent, repaired
from tests.unit.builders import NOW

CONFIRM = 5.0


def finding(name: str = "avatar-8615", kind: str = "PodWithoutClaim", patience: float = 0, uid: str = "u") -> Finding:
    return Finding(kind, ObjectRef("Pod", "live", name, uid), f"pod {name} is wrong", patience=patience)


class Looks:
    """Look after look, at times in seconds."""

    def __init__(self) -> None:
        self.standing = Standing()

    def at(self, seconds: float, *found: Finding, sure: bool = False) -> Change:
        self.standing, change = self.standing.look(found, NOW + timedelta(seconds=seconds), CONFIRM, sure=sure)
        return change


def test_one_look_is_a_suspicion_two_are_a_finding() -> None:
    looks, one = Looks(), finding()
    assert looks.at(0, one) == Change(suspects=1)
    assert looks.at(CONFIRM - 1, one) == Change(suspects=1)
    assert looks.at(CONFIRM, one) == Change(new=(one,))
    assert looks.at(60, one) == Change(), "it is new once"
    assert looks.at(120) == Change(gone=(one,))
    assert looks.at(180) == Change(), "and gone once"


def test_what_was_on_its_way_is_no_repair() -> None:
    looks = Looks()
    looks.at(0, finding())
    assert looks.at(5) == Change()


def test_a_suspicion_that_was_gone_between_begins_anew() -> None:
    looks = Looks()
    looks.at(0, finding())
    looks.at(5)
    assert looks.at(10, finding()) == Change(suspects=1)


def test_a_namesake_is_another_one() -> None:
    looks = Looks()
    looks.at(0, finding(uid="a"))
    assert looks.at(5, finding(uid="b")) == Change(suspects=1)


def test_all_counts_at_once_while_nobody_acts() -> None:
    looks, one = Looks(), finding(patience=100)
    assert looks.at(0, one, sure=True) == Change(new=(one,))
    assert looks.at(5, one) == Change(), "and stays found"
    assert looks.at(10) == Change(gone=(one,))


def test_one_that_has_patience_gets_it() -> None:
    looks, one = Looks(), finding(patience=8)
    looks.at(0, one)
    assert looks.at(CONFIRM, one) == Change(suspects=1)
    assert looks.at(8, one) == Change(new=(one,))


def test_a_figure_that_moves_makes_no_news() -> None:
    looks = Looks()
    looks.at(0, finding(), sure=True)
    moved = Finding("PodWithoutClaim", finding().ref, "other words")
    assert looks.at(5, moved) == Change()
    assert list(looks.standing.findings.values()) == [moved]


def test_an_event_names_some_and_counts_the_rest() -> None:
    one = inconsistent([finding()])
    assert (one.type, one.reason) == ("Warning", "Inconsistent")
    assert one.message == "1 inconsistency: PodWithoutClaim: pod avatar-8615 is wrong"
    many = inconsistent([finding(f"avatar-{n}") for n in range(NAMED + 2)])
    assert many.message.startswith("5 inconsistencies: ")
    assert many.message.endswith(" and 2 more (avatar-operator audit)")
    assert many.message.count("is wrong") == NAMED


def test_the_end_says_how_many_there_were() -> None:
    said = repaired({"PodWithoutClaim": 2, "ServiceDiffers": 1})
    assert (said.type, said.reason) == ("Normal", "Repaired")
    assert said.message == "consistent again: 2 PodWithoutClaim, 1 ServiceDiffers"
