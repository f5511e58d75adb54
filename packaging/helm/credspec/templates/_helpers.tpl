{{- define "credspec.fullname" -}}
{{- if .Values.fullnameOverride }}{{ .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else }}{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" }}{{- end }}
{{- end }}
{{- end }}

{{- define "credspec.webhook" -}}
{{ include "credspec.fullname" . }}-webhook
{{- end }}

{{- define "credspec.labels" -}}
app.kubernetes.io/part-of: credspec
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "credspec.nodeLabels" -}}
app.kubernetes.io/name: credspec-node
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "credspec.webhookLabels" -}}
app.kubernetes.io/name: credspec-webhook
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "credspec.image" -}}
{{- $image := .Values.image }}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}
{{- else }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}{{- end }}
{{- end }}

{{/* CEL: whether a pod of which `.` is the name (object or oldObject) asks for a credential spec. */}}
{{- define "credspec.options" -}}
has(c.securityContext) && has(c.securityContext.windowsOptions) &&
(has(c.securityContext.windowsOptions.gmsaCredentialSpecName) || has(c.securityContext.windowsOptions.gmsaCredentialSpec))
{{- end }}

{{- define "credspec.asks" -}}
- name: not-for-windows
  expression: >-
    (!has(object.spec.os) || object.spec.os.name != 'windows') &&
    (!has(object.spec.nodeSelector) || !('kubernetes.io/os' in object.spec.nodeSelector) ||
    object.spec.nodeSelector['kubernetes.io/os'] != 'windows')
- name: asks-for-a-credential-spec
  expression: >-
    (has(object.metadata.annotations) && object.metadata.annotations.exists(k, k.startsWith('credspec.dev/') &&
    !(k in ['credspec.dev/spec', 'credspec.dev/owner', 'credspec.dev/mode', 'credspec.dev/keytab', 'credspec.dev/tickets', 'credspec.dev/services']))) ||
    (has(object.spec.securityContext) && has(object.spec.securityContext.windowsOptions) &&
    (has(object.spec.securityContext.windowsOptions.gmsaCredentialSpecName) ||
    has(object.spec.securityContext.windowsOptions.gmsaCredentialSpec))) ||
    object.spec.containers.exists(c, {{ include "credspec.options" . | replace "\n" " " }}) ||
    (has(object.spec.initContainers) &&
    object.spec.initContainers.exists(c, {{ include "credspec.options" . | replace "\n" " " }}))
{{- end }}
