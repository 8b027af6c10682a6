{{- /* The cluster queues, as a JSON list: defaults filled in, and refused where a quota is of no pool or of more GPUs than there can be. */ -}}
{{- define "gpu-node-pools.queues" -}}
{{- $capacity := dict -}}
{{- range include "gpu-node-pools.pools" . | fromJsonArray -}}
{{- $_ := set $capacity .name (mul (int64 .maxNodes) (int64 .gpus)) -}}
{{- end -}}
{{- $queues := list -}}
{{- $given := dict -}}
{{- range .Values.kueue.clusterQueues -}}
{{- $queue := deepCopy $.Values.kueue.queueDefaults -}}
{{- range $key, $value := . -}}{{- $_ := set $queue $key $value -}}{{- end -}}
{{- range $queue.gpus -}}
{{- if not (hasKey $capacity .pool) -}}
{{- fail (printf "cluster queue %s: there is no pool %s; pools are %s" $queue.name .pool (keys $capacity | sortAlpha | join ", ")) -}}
{{- end -}}
{{- $sum := add (default 0 (get $given .pool) | int64) (int64 .quota) -}}
{{- $_ := set $given .pool $sum -}}
{{- if gt $sum (get $capacity .pool | int64) -}}
{{- fail (printf "cluster queue %s: quotas of pool %s add up to %d GPUs; its maxNodes have %d" $queue.name .pool $sum (get $capacity .pool | int64)) -}}
{{- end -}}
{{- end -}}
{{- $queues = append $queues $queue -}}
{{- end -}}
{{- toJson $queues -}}
{{- end -}}
