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
  verbs: [get, list, watch, patch, delete]
- apiGroups: [avatars.virtualtutor.io]
  resources: [avatars, avatarpools, ttsengines]
  verbs: [get, list, watch]
- apiGroups: [avatars.virtualtutor.io]
  resources: [avatarinstances/status, avatars/status, avatarpools/status, ttsengines/status]
  verbs: [get, patch]
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
# The end of a failed runtime's log goes into the instance's status.
- apiGroups: [""]
  resources: [pods/log]
  verbs: [get]
- apiGroups: ["", events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
