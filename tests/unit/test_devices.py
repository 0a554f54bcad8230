"""How a pod asks for its GPU in each mode; what is written down about it, and read back."""

from __future__ import annotations

import copy
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avatar_operator.domain import devices, names, objects
from avatar_operator.domain.placement import Placement
from avatar_operator.domain.resources import Dra, Gpu, GpuSelector, Meta, Pool
from avatar_operator.domain.settings import resolve
from tests.unit.builders import PORT, avatar, group_of, instance, meta, pool

UUID = "GPU-8932f937-d72c-4106-c12f-20bd9faed9f6"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
PREFERRED = "preferredDuringSchedulingIgnoredDuringExecution"
ON_ONE = Placement(mib=11000, node="node-1", uuid=UUID, index=1)
CDI = {"name": "CUDA_DEVICE_ORDER", "value": "PCI_BUS_ID"}

Body = dict[str, Any]


def made(in_pool: Pool, placement: Placement | None, claim: str = "") -> Body:
    one = instance()
    return objects.pod(in_pool, [one], resolve(one, in_pool, avatar()), group_of(one), PORT, placement, claim)


def added(gpu: Gpu, placement: Placement, claim: str = "", **runtime: Any) -> tuple[Body, Body, Body]:
    """Metadata, spec and container: what differs from the pod without a GPU."""
    in_pool = pool(gpu=gpu, runtime=runtime)
    bare, found = made(in_pool, None), made(in_pool, placement, claim)

    def changed(before: Body, after: Body) -> Body:
        assert before.keys() <= after.keys()
        return {key: value for key, value in after.items() if before.get(key) != value}

    inside = changed(bare["spec"]["containers"][0], found["spec"]["containers"][0])
    spec = changed(bare["spec"], found["spec"])
    spec.pop("containers", None)
    return (
        {
            **changed(bare["metadata"]["labels"], found["metadata"]["labels"]),
            **changed(bare["metadata"]["annotations"], found["metadata"]["annotations"]),
        },
        spec,
        inside,
    )


def on(*nodes: str) -> list[Body]:
    """Terms that take one node each."""
    return [{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]} for node in nodes]


def required(*terms: Body) -> Body:
    return {"affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": list(terms)}}}}


RESERVED = {
    names.LABEL_GPU: UUID,
    names.ANNOTATION_GPU_NODE: "node-1",
    names.ANNOTATION_GPU_INDEX: "1",
    names.ANNOTATION_GPU_MIB: "11000",
}
BASE_ENV = [
    {"name": "AVATAR_NAME", "value": "Ada"},
    {"name": "AVATAR_PORT", "value": "8615"},
    {"name": "AVATAR_DRAIN_SECONDS", "value": "30"},
]


@pytest.mark.parametrize(
    ("gpu", "placement", "metadata", "spec", "container"),
    [
        pytest.param(Gpu(), ON_ONE, {}, {}, {}, id="None"),
        pytest.param(
            Gpu(mode="VisibleDevices"),
            ON_ONE,
            RESERVED,
            required(*on("node-1")),
            {"env": [*BASE_ENV, {"name": "NVIDIA_VISIBLE_DEVICES", "value": UUID}, CDI]},
            id="VisibleDevices",
        ),
        pytest.param(
            Gpu(mode="VisibleDevices"),
            Placement(mib=4096, uuid="1"),
            {names.LABEL_GPU: "1", names.ANNOTATION_GPU_MIB: "4096"},
            {},
            {"env": [*BASE_ENV, {"name": "NVIDIA_VISIBLE_DEVICES", "value": "1"}, CDI]},
            id="VisibleDevices-without-telemetry",
        ),
        pytest.param(
            Gpu(mode="DevicePlugin", resource_name="nvidia.com/gpu.shared"),
            Placement(mib=11000),
            {names.ANNOTATION_GPU_MIB: "11000"},
            {},
            {"resources": {"limits": {"nvidia.com/gpu.shared": "1"}}},
            id="DevicePlugin-without-telemetry",
        ),
        pytest.param(
            Gpu(mode="DevicePlugin"),
            Placement(mib=11000, nodes=("b",)),
            {names.ANNOTATION_GPU_MIB: "11000", names.ANNOTATION_GPU_NODE: "b"},
            required(*on("b")),
            {"resources": {"limits": {"nvidia.com/gpu": "1"}}},
            id="DevicePlugin-one-node",
        ),
        pytest.param(
            Gpu(mode="DevicePlugin"),
            Placement(mib=11000, nodes=("b", "a", "c")),
            {names.ANNOTATION_GPU_MIB: "11000", names.ANNOTATION_GPU_NODE: "b"},
            {
                "affinity": {
                    "nodeAffinity": {
                        REQUIRED: {"nodeSelectorTerms": on("b", "a", "c")},
                        PREFERRED: [
                            {"weight": weight, "preference": term}
                            for weight, term in zip((100, 51, 1), on("b", "a", "c"), strict=True)
                        ],
                    }
                }
            },
            {"resources": {"limits": {"nvidia.com/gpu": "1"}}},
            id="DevicePlugin-nodes",
        ),
        pytest.param(
            Gpu(mode="DRA"),
            Placement(mib=11264, primary=(UUID,)),
            {names.ANNOTATION_GPU_MIB: "11264"},
            {"resourceClaims": [{"name": "gpu", "resourceClaimName": "avatar-8615-x"}]},
            {"resources": {"claims": [{"name": "gpu"}]}},
            id="DRA",
        ),
        pytest.param(
            Gpu(mode="HAMi", resource_name="nvidia.com/gpu"),
            ON_ONE,
            {**RESERVED, "nvidia.com/use-gpuuuid": UUID},
            required(*on("node-1")),
            {"resources": {"limits": {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "11000"}}},
            id="HAMi",
        ),
        pytest.param(
            Gpu(mode="HAMi"),
            Placement(mib=11000, uuid="all"),
            {names.LABEL_GPU: "all", names.ANNOTATION_GPU_MIB: "11000"},
            {},
            {"resources": {"limits": {"nvidia.com/gpu": "1", "nvidia.com/gpumem": "11000"}}},
            id="HAMi-without-telemetry",
        ),
    ],
)
def test_what_each_mode_adds(gpu: Gpu, placement: Placement, metadata: Body, spec: Body, container: Body) -> None:
    claim = "avatar-8615-x" if gpu.mode == "DRA" else ""
    assert added(gpu, placement, claim) == (metadata, spec, container)


def test_the_runtime_class_is_there_in_every_mode_but_none() -> None:
    for mode in ("VisibleDevices", "DevicePlugin", "DRA", "HAMi"):
        spec = made(pool(gpu=Gpu(mode=mode, runtime_class_name="nvidia")), ON_ONE, "c")["spec"]
        assert spec["runtimeClassName"] == "nvidia"
        assert "runtimeClassName" not in made(pool(gpu=Gpu(mode=mode)), ON_ONE, "c")["spec"]
    assert "runtimeClassName" not in made(pool(gpu=Gpu(runtime_class_name="nvidia")), None)["spec"]


def test_the_pools_own_variables_win_and_come_last() -> None:
    own = [{"name": "CUDA_DEVICE_ORDER", "value": "FASTEST_FIRST"}, {"name": "X", "value": "$(NVIDIA_VISIBLE_DEVICES)"}]
    _, _, container = added(Gpu(mode="VisibleDevices"), ON_ONE, env=own)
    assert container["env"] == [*BASE_ENV, {"name": "NVIDIA_VISIBLE_DEVICES", "value": UUID}, *own]


def test_the_pools_own_resources_stay() -> None:
    resources = {"requests": {"cpu": "2", "nvidia.com/gpu": "3"}, "limits": {"memory": "8Gi", "nvidia.com/gpu": "3"}}
    _, _, container = added(Gpu(mode="DevicePlugin"), Placement(mib=1), resources=resources)
    assert container["resources"] == {"requests": {"cpu": "2"}, "limits": {"memory": "8Gi", "nvidia.com/gpu": "1"}}
    _, _, container = added(Gpu(mode="DRA"), Placement(mib=1), "c", resources=resources)
    assert container["resources"] == {**resources, "claims": [{"name": "gpu"}]}


ZONE = {"key": "zone", "operator": "In", "values": ["a"]}
SPOT = {"key": "spot", "operator": "DoesNotExist"}
NOT_ME = {"key": "metadata.name", "operator": "NotIn", "values": ["node-9"]}


@pytest.mark.parametrize(
    ("given_terms", "nodes", "terms"),
    [
        pytest.param([], ("n",), on("n"), id="none"),
        pytest.param(
            [{"matchExpressions": [ZONE]}],
            ("n",),
            [{"matchExpressions": [ZONE], **on("n")[0]}],
            id="and",
        ),
        pytest.param(
            [{"matchExpressions": [ZONE]}, {"matchExpressions": [SPOT], "matchFields": [NOT_ME]}],
            ("n", "m"),
            [
                {"matchExpressions": [ZONE], **on("n")[0]},
                {"matchExpressions": [SPOT], "matchFields": [NOT_ME, *on("n")[0]["matchFields"]]},
                {"matchExpressions": [ZONE], **on("m")[0]},
                {"matchExpressions": [SPOT], "matchFields": [NOT_ME, *on("m")[0]["matchFields"]]},
            ],
            id="each-with-each",
        ),
        pytest.param([{}], ("n",), [{}], id="a-term-that-selects-nothing"),
        pytest.param(
            [{}, {"matchExpressions": [ZONE]}],
            ("n",),
            [{"matchExpressions": [ZONE], **on("n")[0]}],
            id="one-that-selects-nothing-of-two",
        ),
    ],
)
def test_the_pools_own_affinity_stays(given_terms: list[Body], nodes: tuple[str, ...], terms: list[Body]) -> None:
    wish = {"weight": 7, "preference": {"matchExpressions": [ZONE]}}
    affinity: Body = {"podAntiAffinity": {"x": []}, "nodeAffinity": {PREFERRED: [wish]}}
    if given_terms:
        affinity["nodeAffinity"][REQUIRED] = {"nodeSelectorTerms": given_terms}
    before = copy.deepcopy(affinity)
    _, spec, _ = added(Gpu(mode="DevicePlugin"), Placement(mib=1, nodes=nodes), affinity=affinity)
    found = spec["affinity"] if given_terms != [{}] else affinity
    assert affinity == before, "the pool's own is not changed"
    assert found["podAntiAffinity"] == {"x": []}
    assert found["nodeAffinity"][REQUIRED]["nodeSelectorTerms"] == terms
    assert found["nodeAffinity"][PREFERRED][0] == wish
    assert len(found["nodeAffinity"][PREFERRED]) == (1 if len(nodes) == 1 else 1 + len(nodes))


def test_many_nodes_are_cut_and_weights_stay_valid() -> None:
    nodes = tuple(f"node-{number}" for number in range(3000))
    _, spec, _ = added(Gpu(mode="DevicePlugin"), Placement(mib=1, nodes=nodes))
    affinity = spec["affinity"]["nodeAffinity"]
    assert affinity[REQUIRED]["nodeSelectorTerms"] == on(*nodes[:100])
    weights = [wish["weight"] for wish in affinity[PREFERRED]]
    assert weights == sorted(weights, reverse=True)
    assert (weights[0], weights[-1], len(weights)) == (100, 1, 100)


def test_nothing_that_a_pool_gave_is_changed() -> None:
    runtime: Body = {
        "resources": {"limits": {"memory": "8Gi"}, "requests": {"nvidia.com/gpu": "1"}},
        "env": [{"name": "TZ", "value": "UTC"}],
        "affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": [NOT_ME]}]}}},
        "pod_labels": {"team": "lips"},
        "pod_annotations": {"note": "x"},
    }
    before = copy.deepcopy(runtime)
    for mode in ("VisibleDevices", "DevicePlugin", "DRA", "HAMi"):
        made(pool(gpu=Gpu(mode=mode), runtime=runtime), Placement(mib=1, node="n", uuid="u", nodes=("a", "b")), "c")
        assert runtime == before


# ---- the reservation -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("placement", "read"),
    [
        (ON_ONE, ON_ONE),
        (Placement(mib=0, node="n", uuid="0", index=0), Placement(mib=0, node="n", uuid="0", index=0)),
        (Placement(mib=4096), Placement(mib=4096)),
        # What is only asked for is not what is had; the best node is the likely one.
        (Placement(mib=1, nodes=("a", "b")), Placement(mib=1, node="a")),
        (Placement(mib=1, primary=("u",), backup=("v",)), Placement(mib=1)),
        # Old names of MIG devices are no label values.
        (Placement(mib=1, node="n", uuid="MIG-GPU-1/0/0"), Placement(mib=1, node="n")),
        (Placement(mib=1, node="n", uuid="x" * 64), Placement(mib=1, node="n")),
    ],
)
def test_a_reservation_is_read_as_it_was_written(placement: Placement, read: Placement) -> None:
    labels, annotations = devices.reservation_metadata(placement)
    assert devices.placement_of(meta("avatar-8615", labels=labels, annotations=annotations)) == read
    service = objects.service(instance(), "g", PORT, placement)["metadata"]
    assert devices.placement_of(msgspec.convert(service, Meta)) == read
    body = made(pool(gpu=Gpu(mode="VisibleDevices")), placement)["metadata"]
    assert devices.placement_of(msgspec.convert(body, Meta)) == read


@pytest.mark.parametrize("text", ["", "many", "-1", "1.5", "²", "٣"])
def test_what_is_no_reservation(text: str) -> None:
    assert devices.placement_of(meta("x", annotations={names.ANNOTATION_GPU_MIB: text})) is None
    assert devices.placement_of(meta("x", labels={names.LABEL_GPU: UUID})) is None
    read = devices.placement_of(
        meta("x", annotations={names.ANNOTATION_GPU_MIB: "5", names.ANNOTATION_GPU_INDEX: text})
    )
    assert read == Placement(mib=5)


def test_the_service_without_a_placement_reserves_nothing() -> None:
    assert devices.placement_of(msgspec.convert(objects.service(instance(), "g", PORT)["metadata"], Meta)) is None


# ---- the template --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "two", "same"),
    [
        (Gpu(), Gpu(resource_name="x/y", dra=Dra(capacity="z"), runtime_class_name="nvidia"), True),
        (Gpu(), Gpu(mode="VisibleDevices"), False),
        (Gpu(mode="DevicePlugin"), Gpu(mode="HAMi"), False),
        (Gpu(mode="DevicePlugin"), Gpu(mode="DevicePlugin", resource_name="nvidia.com/gpu.shared"), False),
        (Gpu(mode="HAMi"), Gpu(mode="HAMi", resource_name="nvidia.com/vgpu"), False),
        (Gpu(mode="DRA"), Gpu(mode="DRA", dra=Dra(device_class_name="x")), False),
        (Gpu(mode="VisibleDevices"), Gpu(mode="VisibleDevices", dra=Dra(device_class_name="x")), True),
        (Gpu(mode="VisibleDevices"), Gpu(mode="VisibleDevices", runtime_class_name="nvidia"), False),
        # Where the next one goes is no reason to end those that run.
        (
            Gpu(mode="DRA"),
            Gpu(mode="DRA", primary=GpuSelector(uuids=["a"]), min_free_mib=1, per_instance_mib=2, policy="BinPack"),
            True,
        ),
    ],
)
def test_which_gpu_rules_outdate_a_pod(one: Gpu, two: Gpu, same: bool) -> None:
    hashes = [objects.template_hash(made(pool(gpu=gpu), None)) for gpu in (one, two)]
    assert (hashes[0] == hashes[1]) is same
    for gpu, bare in zip((one, two), hashes, strict=True):
        for placement in (ON_ONE, Placement(mib=1, nodes=("a", "b")), Placement(mib=7)):
            assert objects.template_hash(made(pool(gpu=gpu), placement, "c")) == bare, "the placement is not in it"


# ---- ResourceClaims --------------------------------------------------------------------

POD = meta(
    "avatar-8615",
    labels={**objects.labels("default", "0123", PORT), "team": "lips"},
)
BY_UUID = '"uuid" in device.attributes["gpu.nvidia.com"] && device.attributes["gpu.nvidia.com"].uuid in '
BY_PRODUCT = (
    '"productName" in device.attributes["gpu.nvidia.com"] && '
    'device.attributes["gpu.nvidia.com"].productName.replace(" ", "-") in '
)


def request_of(gpu: Gpu, placement: Placement) -> Body:
    claim = devices.resource_claim(pool(gpu=gpu), POD, placement, "c")
    (request,) = claim["spec"]["devices"]["requests"]
    assert request.pop("name") == "gpu"
    return dict(request)


def asks(*expressions: str, name: str = "", mib: int = 11264) -> Body:
    """One (sub)request."""
    return {
        **({"name": name} if name else {}),
        "deviceClassName": "gpu.nvidia.com",
        "capacity": {"requests": {"memory": f"{mib}Mi"}},
        **({"selectors": [{"cel": {"expression": text}} for text in expressions]} if expressions else {}),
    }


def test_a_whole_resource_claim() -> None:
    gpu = Gpu(mode="DRA", dra=Dra(device_class_name="shared", driver="gpu.example", capacity="vram"))
    placement = Placement(mib=11264, primary=("GPU-1", "GPU-2"), backup=("GPU-0",))
    assert devices.resource_claim(pool(gpu=gpu), POD, placement, "avatar-8615-x") == {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "ResourceClaim",
        "metadata": {
            "name": "avatar-8615-x",
            "namespace": "live",
            "labels": objects.labels("default", "0123", PORT),
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Pod",
                    "name": "avatar-8615",
                    "uid": "uid-avatar-8615",
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": {
            "devices": {
                "requests": [
                    {
                        "name": "gpu",
                        "firstAvailable": [
                            {
                                "name": name,
                                "deviceClassName": "shared",
                                "capacity": {"requests": {"vram": "11264Mi"}},
                                "selectors": [
                                    {
                                        "cel": {
                                            "expression": '"uuid" in device.attributes["gpu.example"] && '
                                            f'device.attributes["gpu.example"].uuid in [{uuids}]'
                                        }
                                    }
                                ],
                            }
                            for name, uuids in (("primary", '"GPU-1","GPU-2"'), ("backup", '"GPU-0"'))
                        ],
                    }
                ]
            }
        },
    }


ANY, L4, T4 = GpuSelector(), GpuSelector(products=["NVIDIA-L4"]), GpuSelector(products=["Tesla T4"], uuids=["b"])


@pytest.mark.parametrize(
    ("gpu", "placement", "request_"),
    [
        (Gpu(), {"primary": ("a",)}, {"exactly": asks(BY_UUID + '["a"]')}),
        (Gpu(), {"backup": ("a", "b")}, {"exactly": asks(BY_UUID + '["a","b"]')}),
        # With telemetry the UUIDs say it all.
        (Gpu(primary=L4, backup=T4), {"primary": ("a",)}, {"exactly": asks(BY_UUID + '["a"]')}),
        (Gpu(), {}, {"exactly": asks()}),
        (Gpu(primary=ANY), {}, {"exactly": asks()}),
        (Gpu(primary=L4), {}, {"exactly": asks(BY_PRODUCT + '["NVIDIA-L4"]')}),
        (
            Gpu(backup=L4),
            {},
            {"firstAvailable": [asks(name="primary"), asks(BY_PRODUCT + '["NVIDIA-L4"]', name="backup")]},
        ),
        (
            Gpu(primary=L4, backup=T4),
            {},
            {
                "firstAvailable": [
                    asks(BY_PRODUCT + '["NVIDIA-L4"]', name="primary"),
                    asks(BY_UUID + '["b"]', BY_PRODUCT + '["Tesla-T4"]', name="backup"),
                ]
            },
        ),
    ],
)
def test_what_a_claim_asks_for(gpu: Gpu, placement: Body, request_: Body) -> None:
    assert request_of(gpu, Placement(mib=11264, **placement)) == request_


def test_odd_names_stay_strings() -> None:
    odd = 'a"] || true || "" in ["\\\n'
    (selector,) = request_of(Gpu(primary=GpuSelector(products=[odd])), Placement(mib=1))["exactly"]["selectors"]
    assert selector["cel"]["expression"] == BY_PRODUCT + r'["a\"]-||-true-||-\"\"-in-[\"\\\n"]'


UUIDS = st.integers(0, 600).flatmap(lambda n: st.just(tuple(f"GPU-{i:036}" for i in range(n)))) | st.lists(
    # No brackets: the test below joins the lists at them.
    st.text(st.characters(codec="utf-8", exclude_characters="[]"), min_size=1, max_size=128),
    max_size=256,
    unique=True,
).map(tuple)


@given(UUIDS, UUIDS)
def test_long_lists_keep_the_apis_limits_and_the_order(primary: tuple[str, ...], backup: tuple[str, ...]) -> None:
    request = request_of(Gpu(), Placement(mib=1, primary=primary, backup=backup))
    parts = request.get("firstAvailable") or [request["exactly"]]
    assert len(parts) <= devices.MAX_SUBREQUESTS
    expressions = [s["cel"]["expression"] for part in parts for s in part.get("selectors", [])]
    assert all(len(text.encode()) <= devices.CEL_BYTES for text in expressions)
    found = "".join(text.removeprefix(BY_UUID) for text in expressions)
    wanted = [devices._text(uuid) for uuid in (*primary, *backup)]
    if sum(len(text.encode()) + 1 for text in wanted) < devices.CEL_BYTES * 7 // 2:
        assert found.replace("][", ",") == (f"[{','.join(wanted)}]" if wanted else "")
    for some in (primary, backup):
        assert not some or devices._text(some[0]) in found, "the best of both is always in it"


def test_names_of_subrequests_are_unique_labels() -> None:
    many = tuple(f"GPU-{i:036}" for i in range(3000))
    parts = request_of(Gpu(), Placement(mib=1, primary=many, backup=many))["firstAvailable"]
    assert [part["name"] for part in parts] == [
        "primary", "primary-1", "primary-2", "primary-3", "backup", "backup-1", "backup-2", "backup-3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("gpu", "known", "word"),
    [
        (Gpu(mode="DRA", primary=GpuSelector(indices=[1])), False, "gpu.primary.indices"),
        (Gpu(mode="DRA", backup=GpuSelector(indices=[1])), False, "gpu.backup.indices"),
        (Gpu(mode="DRA", primary=GpuSelector(node_selector={"a": "b"})), False, "gpu.primary.nodeSelector"),
        (Gpu(mode="DRA", primary=GpuSelector(indices=[1], node_selector={"a": "b"})), True, ""),
        (Gpu(mode="DRA", primary=GpuSelector(uuids=["a"], products=["b"])), False, ""),
        (Gpu(mode="DRA"), False, ""),
        (Gpu(mode="VisibleDevices", primary=GpuSelector(indices=[1])), False, ""),
    ],
)
def test_what_dra_cannot_be_asked(gpu: Gpu, known: bool, word: str) -> None:
    problem = devices.dra_problem(gpu, known)
    assert bool(problem) is bool(word)
    assert word in problem
    assert "agent" in problem or not word


# ---- what was allocated ------------------------------------------------------------------


def a_slice(node: str = "node-1", generation: int = 1, shared: bool = True, driver: str = "gpu.nvidia.com") -> Body:
    device: Body = {
        "name": "gpu-1",
        "attributes": {"uuid": {"string": f"GPU-{generation}"}, f"{driver}/index": {"int": 1}},
        "capacity": {"memory": {"value": "24Gi"}},
    }
    return {
        "spec": {
            "driver": driver,
            "nodeName": node,
            "pool": {"name": node, "generation": generation, "resourceSliceCount": 1},
            "devices": [{"name": "gpu-0"}, device],
        }
    }


def a_claim(consumed: Body | None, request: str = "gpu/backup", **allocation: Any) -> Body:
    result: Body = {"request": request, "driver": "gpu.nvidia.com", "pool": "node-1", "device": "gpu-1"}
    if consumed is not None:
        result["consumedCapacity"] = consumed
    return {"status": {"allocation": {"devices": {"results": [result]}, **allocation}}}


ONLY_NODE_1 = {"nodeSelector": {"nodeSelectorTerms": on("node-1")}}


@pytest.mark.parametrize(
    ("claim", "slices", "found"),
    [
        pytest.param({}, [a_slice()], None, id="new"),
        pytest.param({"status": {}}, [a_slice()], None, id="no-allocation"),
        pytest.param(a_claim({"memory": "11Gi"}, request="other"), [a_slice()], None, id="not-our-request"),
        pytest.param(a_claim({"memory": "11Gi"}), [a_slice()], ("node-1", "GPU-1", 1, 11264), id="a-part"),
        pytest.param(a_claim({"memory": "11Gi"}, "gpu"), [a_slice()], ("node-1", "GPU-1", 1, 11264), id="exactly"),
        pytest.param(
            a_claim({"gpu.nvidia.com/memory": "11534336001"}),
            [a_slice()],
            ("node-1", "GPU-1", 1, 11001),
            id="rounded-up",
        ),
        pytest.param(a_claim(None), [a_slice()], ("node-1", "GPU-1", 1, 24576), id="whole"),
        pytest.param(
            a_claim({"memory": "1Gi"}), [a_slice(), a_slice(generation=3)], ("node-1", "GPU-3", 1, 1024), id="newest"
        ),
        pytest.param(
            a_claim({"memory": "1Gi"}),
            [a_slice(driver="other"), a_slice(node="node-2")],
            ("", "", None, 1024),
            id="not-told-any-more",
        ),
        pytest.param(a_claim({"memory": "1Gi"}, **ONLY_NODE_1), [], ("node-1", "", None, 1024), id="node-by-selector"),
        pytest.param(a_claim(None, **ONLY_NODE_1), [], ("node-1", "", None, 0), id="nothing-but-the-node"),
    ],
)
def test_what_a_claim_got(claim: Body, slices: list[Body], found: tuple[str, str, int | None, int] | None) -> None:
    assert devices.allocated(claim, slices) == found


def test_what_a_claim_got_of_another_drivers_capacity() -> None:
    dra = Dra(driver="gpu.nvidia.com", capacity="gpu.nvidia.com/vram")
    assert devices.allocated(a_claim({"gpu.nvidia.com/vram": "2Gi"}), [a_slice()], dra) == ("node-1", "GPU-1", 1, 2048)


@pytest.mark.parametrize(
    ("text", "mib"),
    [
        ("11264Mi", 11264), ("11Gi", 11264), ("1.5Gi", 1536), ("1G", 954), ("1048576", 1), ("1e9", 954),
        ("1E", 953674316407), ("1048576000m", 1), ("1", 1), ("0", 0), ("1n", 1), ("many", 0),
    ],
)  # fmt: skip
def test_quantities(text: str, mib: int) -> None:
    found = devices.allocated(a_claim({"memory": text}), [a_slice()])
    assert found is not None
    assert found[3] == mib
