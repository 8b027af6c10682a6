{{- /*
What is released is not helm's to decide: the deploy step patches the live object, and an upgrade must neither roll a model back
nor out. So bundle and paused are read from the cluster. Gives {bundle, paused} as YAML. Empty: nothing was released yet.

Where the other kind is live (rollout.enabled was changed), its bundle goes on. Not in the middle of a canary: what stands in
the Rollout then is the candidate, and a Deployment would give it to everybody.
*/ -}}
{{- define "ranker-serving.live" -}}
{{- $name := include "ranker-serving.fullname" . -}}
{{- $deployment := lookup "apps/v1" "Deployment" .Release.Namespace $name -}}
{{- $rollout := dict -}}
{{- if .Capabilities.APIVersions.Has "argoproj.io/v1alpha1/Rollout" -}}
{{- $rollout = lookup "argoproj.io/v1alpha1" "Rollout" .Release.Namespace $name -}}
{{- end -}}
{{- if and $rollout (not .Values.rollout.enabled) -}}
{{- if ne (dig "status" "stableRS" "" $rollout) (dig "status" "currentPodHash" "" $rollout) -}}
{{- fail (printf "rollout.enabled is false, but Rollout %s is not at its stable bundle; wait for the end of its canary, or undo it, and upgrade again" $name) -}}
{{- end -}}
{{- end -}}
{{- $object := ternary (default $deployment $rollout) (default $rollout $deployment) .Values.rollout.enabled -}}
{{- $live := "" -}}
{{- range dig "spec" "template" "spec" "containers" list $object -}}
{{- if eq .name "server" -}}
{{- range .env -}}
{{- if eq .name "TIDEWHEEL_BUNDLE" -}}{{- $live = default "" .value -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $live }}
bundle: {{ $live | quote }}
paused: {{ dig "spec" "paused" false $object }}
{{- else }}
bundle: {{ .Values.bundle | quote }}
paused: {{ empty .Values.bundle }}
{{- end -}}
{{- end -}}

{{- /* Argo Rollouts points -stable and -canary at a revision's pods by one more key of their selector: it stays. */ -}}
{{- define "ranker-serving.live-revision" -}}
{{- $service := lookup "v1" "Service" .namespace .name -}}
{{- with dig "spec" "selector" "rollouts-pod-template-hash" "" $service }}
rollouts-pod-template-hash: {{ . | quote }}
{{- end -}}
{{- end -}}
