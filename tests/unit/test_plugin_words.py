"""What the plugin writes: rows, steps of a start, words for times and sizes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
import yaml

from avatar_operator.domain.meaning import meant
from avatar_operator.domain.resources import ContainerState, ContainerStatus, Gpu, GpuStatus, PoolStatus, Session
from avatar_operator.domain.resources import InstanceStatus as Status
from avatar_operator.domain.resources import PoolInstanceStatus as Phases
from avatar_operator.domain.resources import PoolPortStatus as PortStatus
from avatar_operator.plugin import listing, pools, steps, words
from avatar_operator.plugin.app import ordered
from avatar_operator.plugin.steps import Involved, Told
from avatar_operator.plugin.talk import MEDIA
from tests.unit.builders import NOW, ago, bare_pod, condition, instance, later, meta, pool, running, waiting

ROOT = Path(__file__).resolve().parents[2]

# ---- words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (119.9, "119s"),
        (120, "2m"),
        (7199, "119m"),
        (7200, "2h"),
        (172800, "2d"),
        (864000, "10d"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert words.span(timedelta(seconds=seconds)) == text


def test_counting() -> None:
    assert words.counted(1, "person/people") == "1 person"
    assert words.counted(0, "person/people") == "0 people"
    assert words.counted(2, "instance") == "2 instances"


def test_columns_stand_below_each_other_in_any_script() -> None:
    rows = words.table(("NAME", "AGE"), [["林", "3s"], ["Ada Lovelace", ""], ["x", words.phase("Running")]])
    assert [each.plain for each in rows] == [
        "NAME           AGE",
        "林             3s",
        "Ada Lovelace",
        "x              Running",
    ]


def test_options_before_the_command_count() -> None:
    assert ordered(["-n", "x", "--context=c", "list", "-w"]) == ["list", "-n", "x", "--context=c", "-w"]
    assert ordered(["list", "-n", "x"]) == ["list", "-n", "x"]
    assert ordered(["--help"]) == ["--help"]
    assert ordered(["-n", "x"]) == ["-n", "x"]


# ---- which instance is meant -----------------------------------------------------------


def test_a_name_is_meant_before_an_avatar() -> None:
    items = [instance("Ada", "Bob"), instance("second", "Ada"), instance("third", "Ada", avatar_id="call-7")]
    assert [i.metadata.name for i in meant(items, "Ada")] == ["Ada"]
    assert [i.metadata.name for i in meant(items, "call-7")] == ["third"]
    assert [i.metadata.name for i in meant(items[1:], "Ada")] == ["second", "third"]
    assert meant(items, "nobody") == []


# ---- rows ----------------------------------------------------------------------------


def test_a_row_of_each_kind() -> None:
    items = [
        instance(
            "ada",
            age=90,
            status=Status(
                phase="Running",
                port=8615,
                node="box",
                gpu=GpuStatus(node="box", index=1, uuid="GPU-1"),
                connections=1,
                observed_sessions=3,
                idle_deadline=later(600),
            ),
        ),
        instance("two", status=Status(phase="Shared", port=8615, shared_with="ada", sessions=(Session(id="s"),))),
        instance("bob", "Bob", status=Status(phase="Pending", reason="PoolFull", queue_position=2)),
        instance("cat", "Cat", status=Status(phase="Failed", reason="ImagePullFailed")),
        instance("new", "Dog", age=3),
    ]
    table = words.table(listing.headers(wide=False, namespaces=False), [listing.row(i, NOW) for i in items])
    assert [each.plain for each in table] == [
        "NAME   AVATAR   PHASE                         PORT   GPU   CONNECTIONS   IDLE-IN   AGE   NODE",
        "ada    Ada      Running                       8615   1     1 (3 seen)    10m       90s   box",
        "two    Ada      Shared (ada)                  8615         1                       10m",
        "bob    Bob      Pending (PoolFull, place 2)                0                       10m",
        "cat    Cat      Failed (ImagePullFailed)                   0                       10m",
        "new    Dog      Pending                                    0                       3s",
    ]
    wide = listing.row(items[0], NOW, wide=True, namespaces=True)
    assert len(wide) == len(listing.headers(wide=True, namespaces=True))
    assert wide[0] == "live"


def test_rows_are_ordered_by_avatar_and_age() -> None:
    items = [instance("c", "Bob"), instance("b", "Ada", age=5), instance("a", "Ada", age=9)]
    assert [i.metadata.name for i in listing.ordered(items)] == ["a", "b", "c"]


def test_a_pool_in_detail() -> None:
    rules = pool(gpu=Gpu(mode="VisibleDevices"), max_instances=3)
    status = PoolStatus(
        ports=PortStatus(used=2, free=3, in_use=[8615, 8617]),
        instances=Phases(running=1, pending=1),
        queue_length=1,
        conditions=(condition("Ready", "False", "NoEligibleGPU", "no GPU that is reported matches spec.gpu"),),
    )
    known = type(rules)(metadata=rules.metadata, spec=rules.spec, status=status)
    items = [
        instance("ada", status=Status(phase="Running", port=8615, ready_time=ago(30), node="box")),
        instance("bob", "Bob", status=Status(phase="Pending", reason="PoolFull", message="full", queue_position=1)),
    ]
    text = "\n".join(each.plain for each in pools.detail(known, items, NOW))
    assert "Ports:       8615–8619, 3 instances at most" in text
    assert "GPU:         VisibleDevices, 4.0 GiB each, 10.7 GiB must be free" in text
    assert "8615   ada    Ada      Running          0             box    30s" in text
    assert "8617                   being released" in text
    assert "1       bob    Bob      PoolFull   full" in text
    assert "Ready       False    NoEligibleGPU   no GPU that is reported matches spec.gpu" in text
    row = [str(cell) for cell in pools.row(known, NOW)]
    assert row[1:6] == ["8615–8619", "2", "3", "1 running, 1 pending", "1"]
    assert "NoEligibleGPU" in row


# ---- steps of a start ------------------------------------------------------------------


def starting(**status: object) -> Status:
    return Status(phase="Starting", reason="Starting", port=8615, **status)  # type: ignore[arg-type]


def test_the_operator_is_missed_after_a_while() -> None:
    assert steps.step(instance(age=1), None, (), NOW) == "waiting for the operator"
    assert "does avatar-operator run" in steps.step(instance(age=30), None, (), NOW)


def test_the_place_in_the_queue_is_told() -> None:
    item = instance(status=Status(phase="Pending", reason="PoolFull", message="5 of 5", queue_position=3))
    assert steps.step(item, None, (), NOW) == "in the queue, place 3: 5 of 5"


def test_a_pod_tells_how_far_it_is() -> None:
    item = instance(status=starting())
    assert steps.step(item, None, (), NOW) == "making the pod on port 8615"
    made = bare_pod(container=waiting("ContainerCreating"))
    assert steps.step(item, made, (), NOW) == "pod avatar-8615 on port 8615: preparing the container"
    pull = Told(
        metadata=meta("e"),
        reason="Pulling",
        message='Pulling image "registry.example/runtime:1"',
        involved_object=Involved(uid=made.metadata.uid),
    )
    other = Told(metadata=meta("f"), reason="Pulling", message="of another", involved_object=Involved(uid="x"))
    pulling = steps.step(item, made, (other, pull), NOW)
    assert pulling == 'pod avatar-8615 on port 8615: pulling image "registry.example/runtime:1"'
    loads = steps.step(item, bare_pod(container=running()), (pull,), NOW)
    assert loads == "pod avatar-8615 on port 8615: the runtime is loading"


def test_a_start_is_never_called_late_by_the_plugin() -> None:
    """That is the operator's to say, by its own clock and limits."""
    item = instance(status=starting())
    slow = bare_pod(container=running(since=ago(50_000)))
    assert steps.step(item, slow, (), NOW).endswith("the runtime is loading")


def test_a_failure_says_when_it_is_tried_again_and_what_to_do() -> None:
    status = Status(phase="Failed", reason="CrashLoop", message="ended with 1", retry_time=later(12))
    assert steps.step(instance(status=status), None, (), NOW) == "CrashLoop: ended with 1; tried again in 12 s"
    assert steps.remedy("CrashLoop", "ada") == "read what it said: kubectl avatar logs ada"
    assert steps.remedy("AvatarNotFound", "ada") == ""


def test_a_container_without_a_state_is_no_crash() -> None:
    item = instance(status=starting())
    empty = bare_pod(container=ContainerStatus(name="runtime", state=ContainerState()))
    assert steps.step(item, empty, (), NOW).startswith("pod avatar-8615")


def test_remedies_are_of_reasons_that_the_operator_gives() -> None:
    source = "".join(
        path.read_text(encoding="utf-8") for path in (ROOT / "operator/avatar_operator/domain").glob("*.py")
    )
    assert [reason for reason in steps.REMEDIES if f'"{reason}"' not in source] == []


def test_each_network_mode_has_advice_for_media_that_do_not_come() -> None:
    crd = yaml.safe_load((ROOT / "crds/avatarpools.yaml").read_text(encoding="utf-8"))
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    assert set(MEDIA) == set(spec["properties"]["network"]["properties"]["mode"]["enum"])
