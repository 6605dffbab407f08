{{/* Labels of every object: {{ include "steward.labels" (list . "apiserver") }} */}}
{{- define "steward.labels" -}}
{{- $root := index . 0 -}}
{{ include "steward.selector" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* What never changes: the labels that selectors use. */}}
{{- define "steward.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: steward
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/*
Image of one of our programs: {{ include "steward.image" (list . "apiserver") }}

Values that came with a later chart are read as if they might be missing, here
and everywhere: `helm upgrade --reuse-values` brings the values of the old one.
*/}}
{{- define "steward.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.image (index . 1) -}}
{{ include "steward.imageOf" (list $root $image ($image.tag | default $root.Chart.AppVersion)) }}
{{- end }}

{{/* Image by its values and a tag. A digest goes before the tag; the registry of
all images replaces the host of the repository, if it begins with one. */}}
{{- define "steward.imageOf" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- $repository := $image.repository -}}
{{- with (($root.Values).global).imageRegistry -}}
{{- $parts := splitList "/" $repository -}}
{{- $host := first $parts -}}
{{- if and (gt (len $parts) 1) (or (contains "." $host) (contains ":" $host) (eq $host "localhost")) -}}
{{- $parts = rest $parts -}}
{{- end -}}
{{- $repository = printf "%s/%s" (trimSuffix "/" .) (join "/" $parts) -}}
{{- end -}}
{{- with $image.digest -}}
{{ $repository }}@{{ . }}
{{- else -}}
{{ $repository }}:{{ index $ 2 }}
{{- end -}}
{{- end }}

{{/* Who a Pod runs as, and what its containers may do: nothing beside their work.
{{ include "steward.podSecurityContext" . }}; a value that is null is left to the
cluster. */}}
{{- define "steward.podSecurityContext" -}}
{{- if hasKey .Values "podSecurityContext" -}}
{{ toYaml (.Values.podSecurityContext | default dict) }}
{{- else -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}
{{- end }}

{{- define "steward.securityContext" -}}
{{- if hasKey .Values "securityContext" -}}
{{ toYaml (.Values.securityContext | default dict) }}
{{- else -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}
{{- end }}

{{/* A duration such as 720h or 30d, in hours. */}}
{{- define "steward.hours" -}}
{{- if hasSuffix "d" . }}{{ mul 24 (trimSuffix "d" . | int64) }}{{ else }}{{ trimSuffix "h" . | int64 }}{{ end }}
{{- end }}

{{/* For how long certificates are made and when they are renewed. The programs refuse
what would be renewed without end, and the set-up would fail only after the install. The
chart's etcd is looked at once a day: what is due must not end before, should one day's
Job fail. */}}
{{- define "steward.certificates" -}}
{{- $window := ((.Values).certificates).renewalWindow | default "720h" }}
{{- $lifetime := ((.Values).certificates).lifetime | default "8760h" }}
{{- $hours := include "steward.hours" $window | int64 }}
{{- $life := include "steward.hours" $lifetime | int64 }}
{{- if lt $life (mul 2 $hours) }}
{{- fail (printf "certificates.lifetime: a lifetime of %s is too short for a renewal window of %s: certificates have to live for two windows at least, else they would be renewed all the time" $lifetime $window) }}
{{- end }}
{{- if gt $life 87600 }}
{{- fail (printf "certificates.lifetime: a lifetime of %s is too long: authorities live for 87600h" $lifetime) }}
{{- end }}
{{- if and (.Values.etcd).enabled (lt $hours 72) }}
{{- fail "certificates.renewalWindow must be 72h or more with etcd.enabled: the certificates of etcd are looked at once a day" }}
{{- end -}}
- --certificate-lifetime={{ $lifetime }}
- --certificate-renewal-window={{ $window }}
{{- end }}

{{/* The binding of a Role of that name to one of our accounts:
{{ include "steward.binding" (list . "controller" "role" "namespace") }} */}}
{{- define "steward.binding" -}}
{{- $root := index . 0 -}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  name: {{ index . 2 }}
  namespace: {{ index . 3 }}
  labels: {{ include "steward.labels" (list $root (index . 1)) | nindent 4 }}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: Role
  name: {{ index . 2 }}
subjects:
  - kind: ServiceAccount
    name: steward-{{ index . 1 }}
    namespace: {{ $root.Release.Namespace }}
{{- end }}

{{/* Annotations of a ServiceAccount: {{ include "steward.accountAnnotations" .Values.apiserver }} */}}
{{- define "steward.accountAnnotations" -}}
{{- with (.serviceAccount).annotations }}
annotations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where a Pod runs: {{ include "steward.placement" .Values.controller }} */}}
{{- define "steward.placement" -}}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints: {{ toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Where a Pod with replicas runs: as above; and unless the values say where, not on
one node and not in one zone, if there are others.
{{ include "steward.spread" (list . "controller") }}
*/}}
{{- define "steward.spread" -}}
{{- $root := index . 0 -}}
{{- $part := deepCopy (index $root.Values (index . 1)) -}}
{{- if gt (int $part.replicas) 1 -}}
{{- $labels := dict "matchLabels" (include "steward.selector" . | fromYaml) -}}
{{- if not $part.affinity -}}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" $labels -}}
{{- $preferred := list (dict "weight" 100 "podAffinityTerm" $term) -}}
{{- $_ := set $part "affinity" (dict "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" $preferred)) -}}
{{- end -}}
{{- if not $part.topologySpreadConstraints -}}
{{- $zone := dict "maxSkew" 1 "topologyKey" "topology.kubernetes.io/zone" "whenUnsatisfiable" "ScheduleAnyway" "labelSelector" $labels -}}
{{- $_ := set $part "topologySpreadConstraints" (list $zone) -}}
{{- end -}}
{{- end -}}
{{ include "steward.placement" $part }}
{{- end }}

{{/* Head of a policy about the controller's account. */}}
{{- define "steward.policyFor" -}}
failurePolicy: Fail
matchConditions:
  - name: the-controller
    expression: request.userInfo.username == 'system:serviceaccount:{{ .Release.Namespace }}:steward-controller'
{{- end }}
