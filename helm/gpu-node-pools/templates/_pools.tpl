{{- /*
The pools, as a JSON list: defaults filled in, labels and taints complete, and refused where their provider cannot make them.
Keys of a pool replace those of poolDefaults: helm's merge functions would take 0 and [] for "says nothing".
*/ -}}
{{- define "gpu-node-pools.pools" -}}
{{- $pools := list -}}
{{- $names := list -}}
{{- range .Values.pools -}}
{{- $pool := deepCopy $.Values.poolDefaults -}}
{{- range $key, $value := . -}}{{- $_ := set $pool $key $value -}}{{- end -}}
{{- if has $pool.name $names -}}{{- fail (printf "pools: there are two of the name %s" $pool.name) -}}{{- end -}}
{{- $names = append $names $pool.name -}}
{{- $_ := set $pool "labels" (merge (dict "tidewheel/pool" $pool.name) $pool.labels) -}}
{{- $gpu := dict "key" "nvidia.com/gpu" "value" "present" "effect" "NoSchedule" -}}
{{- $_ := set $pool "taints" (prepend $pool.taints $gpu) -}}
{{- include "gpu-node-pools.check-pool" (dict "pool" $pool "provider" $.Values.provider) -}}
{{- $pools = append $pools $pool -}}
{{- end -}}
{{- toJson $pools -}}
{{- end -}}

{{- define "gpu-node-pools.check-pool" -}}
{{- $pool := .pool -}}
{{- $at := printf "pool %s" $pool.name -}}
{{- if gt (int64 $pool.minNodes) (int64 $pool.maxNodes) -}}
{{- fail (printf "%s: minNodes %d > maxNodes %d" $at (int64 $pool.minNodes) (int64 $pool.maxNodes)) -}}
{{- end -}}
{{- if and (hasPrefix "karpenter-" .provider) (gt (int64 $pool.minNodes) 0) -}}
{{- fail (printf "%s: minNodes is %d; Karpenter keeps no node without work, say 0" $at (int64 $pool.minNodes)) -}}
{{- end -}}
{{- if and (ne .provider "none") (not $pool.accelerator) -}}
{{- fail (printf "%s: accelerator is empty; say which GPU, in the words of %s" $at .provider) -}}
{{- end -}}
{{- if and (eq .provider "karpenter-azure") (gt (int64 $pool.diskGi) 2048) -}}
{{- fail (printf "%s: diskGi is %d; an AKSNodeClass has 2048 at most" $at (int64 $pool.diskGi)) -}}
{{- end -}}
{{- if and (eq .provider "gke") (ne (len $pool.machineTypes) 1) -}}
{{- fail (printf "%s: machineTypes has %d entries; a GKE node pool has exactly one" $at (len $pool.machineTypes)) -}}
{{- end -}}
{{- if eq .provider "cluster-api" -}}
{{- if gt (len $pool.zones) 1 -}}
{{- fail (printf "%s: zones has %d entries; a MachineDeployment has one failure domain" $at (len $pool.zones)) -}}
{{- end -}}
{{- range $key := list "nodeCpu" "nodeMemory" "infrastructureTemplate" -}}
{{- if not (index $pool $key) -}}{{- fail (printf "%s: %s is empty; cluster-api needs it" $at $key) -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- /* Tolerations of a pool's taints, as YAML. */ -}}
{{- define "gpu-node-pools.tolerations" -}}
{{- $lines := list -}}
{{- range . -}}
{{- if or (not .value) (eq .key "nvidia.com/gpu") -}}
{{- $lines = append $lines (printf "- {key: %s, operator: Exists, effect: %s}" .key .effect) -}}
{{- else -}}
{{- $lines = append $lines (printf "- {key: %s, operator: Equal, value: %q, effect: %s}" .key .value .effect) -}}
{{- end -}}
{{- end -}}
{{- join "\n" $lines -}}
{{- end -}}

{{- /* {a: 1, b: 2} as a=1,b=2: how kubelet and the autoscaler take labels. */ -}}
{{- define "gpu-node-pools.joined-labels" -}}
{{- $parts := list -}}
{{- range $key, $value := . -}}{{- $parts = append $parts (printf "%s=%s" $key $value) -}}{{- end -}}
{{- join "," $parts -}}
{{- end -}}

{{- define "gpu-node-pools.joined-taints" -}}
{{- $parts := list -}}
{{- range . -}}{{- $parts = append $parts (printf "%s=%s:%s" .key (default "" .value) .effect) -}}{{- end -}}
{{- join "," $parts -}}
{{- end -}}
