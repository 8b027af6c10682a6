{{- define "ranker-serving.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- /* Room for -canary and what Argo Rollouts appends to names of pods. */ -}}
{{- define "ranker-serving.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) -}}
{{- default $full .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "ranker-serving.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/name: {{ include "ranker-serving.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: tidewheel
app.kubernetes.io/managed-by: {{ .Release.Service }}
tidewheel/recipe: {{ .Values.recipe }}
{{- end -}}

{{- /*
Of pods. No version of the chart is among them: for Argo Rollouts another label is another revision, and an upgrade that changes
nothing of the pods must not begin a canary, or end one.
*/ -}}
{{- define "ranker-serving.pod-labels" -}}
app.kubernetes.io/name: {{ include "ranker-serving.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: tidewheel
tidewheel/recipe: {{ .Values.recipe }}
{{- end -}}

{{- define "ranker-serving.selector" -}}
app.kubernetes.io/name: {{ include "ranker-serving.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: server
{{- end -}}

{{- define "ranker-serving.judge-selector" -}}
app.kubernetes.io/name: {{ include "ranker-serving.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: judge
{{- end -}}

{{- define "ranker-serving.serviceAccountName" -}}
{{- default (ternary (include "ranker-serving.fullname" .) "default" .Values.serviceAccount.create) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "ranker-serving.image" -}}
{{- with .Values.image -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ default $.Chart.AppVersion .tag }}{{- end -}}
{{- end -}}
{{- end -}}

{{- /* apiVersion and kind of what runs the servers. */ -}}
{{- define "ranker-serving.workload" -}}
{{- if .Values.rollout.enabled -}}
apiVersion: argoproj.io/v1alpha1
kind: Rollout
{{- else -}}
apiVersion: apps/v1
kind: Deployment
{{- end }}
name: {{ include "ranker-serving.fullname" . }}
{{- end -}}
