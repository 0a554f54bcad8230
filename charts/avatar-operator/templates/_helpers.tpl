{{- define "avatar-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{/* The release's name, with the chart's where it does not hold it already. */}}
{{- define "avatar-operator.fullname" -}}
{{- $name := include "avatar-operator.name" . }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "avatar-operator.selector" -}}
app.kubernetes.io/name: {{ include "avatar-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Name of the operators of a shard, and of their Lease: (list . index). */}}
{{- define "avatar-operator.shardName" -}}
{{- $top := index . 0 }}
{{- include "avatar-operator.fullname" $top }}
{{- if gt (int $top.Values.shards) 1 }}-{{ index . 1 }}{{ end }}
{{- end }}

{{/* Labels that select the operators of a shard: (list . index). */}}
{{- define "avatar-operator.shardSelector" -}}
{{- $top := index . 0 }}
{{- include "avatar-operator.selector" $top }}
{{- if gt (int $top.Values.shards) 1 }}
avatars.virtualtutor.io/shard: {{ index . 1 | quote }}
{{- end }}
{{- end }}

{{- define "avatar-operator.agentSelector" -}}
app.kubernetes.io/name: {{ include "avatar-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: agent
{{- end }}

{{- define "avatar-operator.apiSelector" -}}
app.kubernetes.io/name: {{ include "avatar-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: api
{{- end }}

{{- define "avatar-operator.turnSelector" -}}
app.kubernetes.io/name: {{ include "avatar-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: turn
{{- end }}

{{/* Labels of everything that is neither the operator, nor the agent, nor the API. */}}
{{- define "avatar-operator.labels" -}}
app.kubernetes.io/name: {{ include "avatar-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{ include "avatar-operator.commonLabels" . }}
{{- end }}

{{- define "avatar-operator.commonLabels" -}}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* Replicas of the pods that labels pick keep apart, where they can: one node or zone that goes takes not all. */}}
{{- define "avatar-operator.spread" -}}
{{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
- maxSkew: 1
  topologyKey: {{ $key }}
  whenUnsatisfiable: ScheduleAnyway
  # Those of one rollout: the old ones are about to go.
  matchLabelKeys: [pod-template-hash]
  labelSelector:
    matchLabels: {{- $ | nindent 6 }}
{{- end }}
{{- end }}

{{- define "avatar-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "avatar-operator.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- required "serviceAccount.name is needed when serviceAccount.create is false" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* An image reference from {image: …, chart: .Chart}. */}}
{{- define "avatar-operator.image" -}}
{{- if .image.digest }}
{{- printf "%s@%s" .image.repository .image.digest }}
{{- else }}
{{- printf "%s:%s" .image.repository (default .chart.AppVersion .image.tag) }}
{{- end }}
{{- end }}

{{/* What the namespace standard "restricted" asks of a pod and of a container. */}}
{{- define "avatar-operator.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "avatar-operator.securityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Rules of the operator in one namespace, or in all of them. */}}
{{- define "avatar-operator.rules" -}}
- apiGroups: [avatars.virtualtutor.io]
  resources: [avatarinstances]
  verbs: [get, list, watch, delete]
- apiGroups: [avatars.virtualtutor.io]
  resources: [avatars, avatarpools, ttsengines]
  verbs: [get, list, watch]
- apiGroups: [avatars.virtualtutor.io]
  resources: [avatarinstances/status, avatars/status, avatarpools/status, ttsengines/status]
  verbs: [patch]
- apiGroups: [""]
  resources: [pods, services]
  verbs: [get, list, watch, create, patch, delete]
# Speech engines run in these.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
# Pools of mode DRA: one claim for each pod.
- apiGroups: [resource.k8s.io]
  resources: [resourceclaims]
  verbs: [get, create]
# Pods in use are not evicted: one budget for each pool.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, create, patch]
- apiGroups: [""]
  resources: [events]
  verbs: [create]
{{- end }}

{{- define "avatar-operator.testSelector" -}}
app.kubernetes.io/name: {{ include "avatar-operator.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: test
{{- end }}

{{/* What the operator puts on the pods of instances and of speech engines (domain/names.py). */}}
{{- define "avatar-operator.instances" -}}
app.kubernetes.io/managed-by: avatar-operator
app.kubernetes.io/component: avatar-runtime
{{- end }}

{{- define "avatar-operator.engines" -}}
app.kubernetes.io/managed-by: avatar-operator
app.kubernetes.io/component: tts-engine
{{- end }}

{{/* Names of the pools whose pods are on the node's network or ports, as JSON. */}}
{{- define "avatar-operator.hostPools" -}}
{{- $names := list }}
{{- range $name, $pool := .Values.pools }}
{{- if and $pool (hasPrefix "Host" (dig "network" "mode" "HostNetwork" $pool)) }}{{ $names = append $names $name }}{{ end }}
{{- end }}
{{- toJson $names }}
{{- end }}

{{/* The ports of a pool's instances, as a NetworkPolicy has them. */}}
{{- define "avatar-operator.poolPorts" -}}
{{- $base := dig "ports" "base" 8615 . | int }}
- protocol: TCP
  port: {{ $base }}
  endPort: {{ sub (add $base (dig "ports" "count" 5 . | int)) 1 }}
{{- end }}

{{/* The ports of the media of instances. */}}
{{- define "avatar-operator.mediaPorts" -}}
- protocol: UDP
  port: 1024
  endPort: 65535
{{- end }}

{{/* Where the TURN relay is, as a peer of a NetworkPolicy. */}}
{{- define "avatar-operator.turnPeers" -}}
{{- if .Values.turn.hostNetwork }}
{{- include "avatar-operator.cidrs" (required "networkPolicies.nodeCIDRs must say where the nodes are: turn.hostNetwork relays from them" (.Values.networkPolicies.nodeCIDRs | default nil)) }}
{{- else }}
- podSelector:
    matchLabels: {{- include "avatar-operator.turnSelector" . | nindent 6 }}
{{- end }}
{{- end }}

{{/* Peers of a NetworkPolicy from a list of CIDRs. */}}
{{- define "avatar-operator.cidrs" -}}
{{- range . }}
- ipBlock:
    cidr: {{ . | quote }}
{{- end }}
{{- end }}

{{- define "avatar-operator.egressDns" -}}
- to: {{- toYaml .Values.networkPolicies.dnsTo | nindent 4 }}
  ports:
    - protocol: UDP
      port: 53
    - protocol: TCP
      port: 53
{{- end }}

{{- define "avatar-operator.egressKubernetes" -}}
- to: {{- include "avatar-operator.cidrs" .Values.networkPolicies.kubernetesCIDRs | nindent 4 }}
  ports:
    {{- range .Values.networkPolicies.kubernetesPorts }}
    - protocol: TCP
      port: {{ . }}
    {{- end }}
{{- end }}

{{/* The way to instances in every namespace, on the nodes' network too. */}}
{{- define "avatar-operator.egressInstances" -}}
- to:
    - namespaceSelector: {}
      podSelector:
        matchLabels: {{- include "avatar-operator.instances" . | nindent 10 }}
  ports:
    - protocol: TCP
      port: 1
      endPort: 65535
{{- range $name := include "avatar-operator.hostPools" . | fromJsonArray }}
{{- with index $.Values.pools $name }}
- to: {{- include "avatar-operator.cidrs" $.Values.networkPolicies.nodeCIDRs | nindent 4 }}
  ports: {{- include "avatar-operator.poolPorts" . | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}

{{/* Port 8080 of operator, agent and REST API: for `helm test`, and for who reads metrics. */}}
{{- define "avatar-operator.ingressMetrics" -}}
- from:
    - podSelector:
        matchLabels: {{- include "avatar-operator.testSelector" . | nindent 10 }}
    {{- with .Values.networkPolicies.metricsFrom }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - protocol: TCP
      port: 8080
{{- end }}

{{/* Of a policy's binding: the namespaces that the operator serves, if they are named. */}}
{{- define "avatar-operator.servedNamespaces" -}}
{{- with .Values.watchNamespaces -}}
matchResources:
  namespaceSelector:
    matchExpressions:
      - key: kubernetes.io/metadata.name
        operator: In
        values: {{- toYaml . | nindent 10 }}
{{- end }}
{{- end }}
