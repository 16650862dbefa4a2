{{/* The name of the release's objects: the release's own where it says slipway already. */}}
{{- define "slipway.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "slipway.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "slipway.fullname" .) -}}
{{- end -}}

{{/* What finds the operator's pods. It can never change: a Deployment's selector is immutable. */}}
{{- define "slipway.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{/* Labels of every object. Not managed-by slipway: the operator watches what carries that. */}}
{{- define "slipway.labels" -}}
{{ include "slipway.selector" . }}
{{ include "slipway.commonLabels" . }}
{{- end -}}

{{/* The same for the activator. */}}
{{- define "slipway.activator" -}}
{{- include "slipway.fullname" . }}-activator
{{- end -}}

{{- define "slipway.activatorSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: activator
{{- end -}}

{{- define "slipway.activatorLabels" -}}
{{ include "slipway.activatorSelector" . }}
{{ include "slipway.commonLabels" . }}
{{- end -}}

{{- define "slipway.commonLabels" -}}
app.kubernetes.io/part-of: {{ .Chart.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- with .Values.labels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The reference of an image, by its name below .Values.images, and what follows the appVersion in its default tag. */}}
{{- define "slipway.image" -}}
{{- $root := index . 0 -}}
{{- $image := index $root.Values.images (index . 1) -}}
{{- if $image.ref -}}
{{- $image.ref -}}
{{- else -}}
{{- with $root.Values.imageRegistry }}{{ . }}/{{ end -}}
{{- $suffix := "" -}}
{{- if gt (len .) 2 -}}{{- $suffix = index . 2 -}}{{- end -}}
{{- $image.repository }}:{{ $image.tag | default (printf "%s%s" $root.Chart.AppVersion $suffix) -}}
{{- end -}}
{{- end -}}
