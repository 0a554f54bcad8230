"""The Kubernetes objects of one speech engine, as plain dictionaries: Deployment and Service."""

from __future__ import annotations

import hashlib
import json

from . import devices, names
from .actions import Json
from .objects import CONTAINER_SECURITY, POD_SECURITY
from .placement import Placement
from .tts import TtsEngine

CONTAINER = "tts"
PORT_NAME = "http"
# A server may finish the sentences that it speaks when its pod is taken away (seconds).
GRACE_SECONDS = 15


def labels(engine: str) -> dict[str, str]:
    """Labels of everything that belongs to an engine."""
    return {
        names.LABEL_MANAGED_BY: names.MANAGER,
        names.LABEL_COMPONENT: names.TTS_COMPONENT,
        names.LABEL_TTS: engine,
    }


def selector(engine: str) -> dict[str, str]:
    """What picks the pods of an engine."""
    return {names.LABEL_COMPONENT: names.TTS_COMPONENT, names.LABEL_TTS: engine}


def owner(engine: TtsEngine) -> Json:
    """An ownerReference to ``engine``: what it made goes with it, operator or no operator."""
    return {
        "apiVersion": names.API_VERSION,
        "kind": "TTSEngine",
        "name": engine.name,
        "uid": engine.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": False,
    }


def service(engine: TtsEngine, speaker: str, placement: Placement | None = None) -> Json:
    """The Service tts-NAME; ``speaker`` is the engine whose pods answer, ``placement`` the GPU that is reserved."""
    gpu_labels, gpu_annotations = devices.reservation_metadata(placement) if placement else ({}, {})
    spec = _service_spec(engine, speaker)
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": names.tts_name(engine.name),
            "namespace": engine.metadata.namespace,
            "labels": {**labels(engine.name), **gpu_labels},
            "annotations": {names.ANNOTATION_TEMPLATE: _digest(spec), **gpu_annotations},
            "ownerReferences": [owner(engine)],
        },
        "spec": spec,
    }


def _service_spec(engine: TtsEngine, speaker: str) -> Json:
    return {
        "selector": selector(speaker),
        # By name: an engine that stands in may listen on another port.
        "ports": [{"name": PORT_NAME, "port": engine.spec.port, "targetPort": PORT_NAME, "protocol": "TCP"}],
    }


def deployment(engine: TtsEngine, replicas: int, placement: Placement | None = None) -> Json:
    """The Deployment tts-NAME with so many pods; ``placement``: the GPU that they get."""
    shared = engine.spec.gpu.mode == "None"
    template: Json = {"metadata": {"labels": labels(engine.name), "annotations": {}}, "spec": _pod_spec(engine)}
    if placement is not None:
        devices.equip(template, engine.as_pool(), placement)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": names.tts_name(engine.name),
            "namespace": engine.metadata.namespace,
            "labels": labels(engine.name),
            "annotations": {names.ANNOTATION_TEMPLATE: template_hash(engine)},
            "ownerReferences": [owner(engine)],
        },
        "spec": {
            "replicas": replicas,
            "revisionHistoryLimit": 1,
            # A new pod beside the old one would need the GPU's memory twice.
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
            if shared
            else {"type": "Recreate"},
            "selector": {"matchLabels": selector(engine.name)},
            "template": template,
        },
    }


def template_hash(engine: TtsEngine) -> str:
    """What the pods are made from, whichever GPU they got."""
    return _digest([_pod_spec(engine), devices.template(engine.as_pool().spec.gpu)])


def _digest(made_from: object) -> str:
    return hashlib.sha256(json.dumps(made_from, sort_keys=True).encode()).hexdigest()[:16]


def _pod_spec(engine: TtsEngine) -> Json:
    spec = engine.spec
    pod: Json = {
        "containers": [_container(engine)],
        "volumes": spec.volumes,
        "securityContext": POD_SECURITY if spec.pod_security_context is None else spec.pod_security_context,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "nodeSelector": spec.node_selector,
        "tolerations": spec.tolerations,
        "affinity": spec.affinity,
        "imagePullSecrets": spec.image_pull_secrets,
        "priorityClassName": spec.priority_class_name,
        "runtimeClassName": spec.gpu.runtime_class_name if spec.gpu.mode != "None" else "",
    }
    return {key: value for key, value in pod.items() if value not in ("", [], {}, None)}


def _container(engine: TtsEngine) -> Json:
    spec = engine.spec
    path, port = spec.health_path, PORT_NAME
    handler: Json = {"httpGet": {"path": path, "port": port}} if path else {"tcpSocket": {"port": port}}
    container: Json = {
        "name": CONTAINER,
        "image": spec.image,
        "imagePullPolicy": spec.image_pull_policy,
        "command": spec.command,
        "args": spec.args,
        # devices.equip() puts its own before the engine's: the list is there, be it empty.
        "env": list(spec.env),
        "ports": [{"name": PORT_NAME, "containerPort": spec.port, "protocol": "TCP"}],
        "resources": spec.resources,
        "volumeMounts": spec.volume_mounts,
        "securityContext": CONTAINER_SECURITY if spec.security_context is None else spec.security_context,
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "readinessProbe": {**handler, "periodSeconds": 1, "timeoutSeconds": 3, "failureThreshold": 3},
        "livenessProbe": {
            **handler,
            # A model that loads for long must not be killed for it.
            "initialDelaySeconds": spec.startup_timeout_seconds,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
    }
    return {key: value for key, value in container.items() if key == "env" or value not in ([], {}, None)}
