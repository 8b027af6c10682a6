{{- define "ranker-serving.pod-security" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "ranker-serving.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{- define "ranker-serving.mounts" -}}
- {name: cache, mountPath: /cache}
- {name: tmp, mountPath: /tmp}
{{- if .Values.store.claim }}
- {name: store, mountPath: {{ .Values.store.mountPath | quote }}}
{{- end }}
{{- end -}}

{{- define "ranker-serving.volumes" -}}
- name: cache
  emptyDir: {sizeLimit: {{ .Values.cache.sizeLimit }}}
- name: tmp
  emptyDir: {}
{{- with .Values.store.claim }}
- name: store
  persistentVolumeClaim: {claimName: {{ . | quote }}}
{{- end }}
{{- end -}}

{{- /* Where a pod may run and as whom: servers and judges alike. */ -}}
{{- define "ranker-serving.placement" -}}
serviceAccountName: {{ include "ranker-serving.serviceAccountName" . }}
automountServiceAccountToken: false
securityContext: {{- include "ranker-serving.pod-security" . | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "ranker-serving.limits" -}}
{{- range $name, $value := .Values.server.limits }}
- {{ printf "--%s" (kebabcase $name) }}
- {{ toString (ternary ($value | int64) $value (eq (floor $value) ($value | float64))) | quote }}
{{- end }}
{{- end -}}

{{- /* The pods of servers. TIDEWHEEL_BUNDLE comes first: it is what the deploy step patches. */ -}}
{{- define "ranker-serving.pod" -}}
metadata:
  labels:
    {{- include "ranker-serving.pod-labels" . | nindent 4 }}
    app.kubernetes.io/component: server
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .Values.podAnnotations }}
  annotations: {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "ranker-serving.placement" . | nindent 2 }}
  terminationGracePeriodSeconds: 30
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.topologySpreadConstraints }}
  topologySpreadConstraints: {{- toYaml . | nindent 4 }}
  {{- end }}
  containers:
    - name: server
      image: {{ include "ranker-serving.image" . | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      command: [python, -m, tidewheel.serving]
      args:
        - --store
        - $(TIDEWHEEL_STORE)
        - --digest
        - $(TIDEWHEEL_BUNDLE)
        - --cache
        - /cache
        - --host
        - 0.0.0.0
        - --port
        - "8080"
        - --drain-seconds
        - "10"
        {{- with include "ranker-serving.limits" . | trim }}
        {{- . | nindent 8 }}
        {{- end }}
      env:
        - name: TIDEWHEEL_BUNDLE
          value: {{ (include "ranker-serving.live" . | fromYaml).bundle | quote }}
        - name: TIDEWHEEL_STORE
          value: {{ .Values.store.url | quote }}
        {{- with .Values.extraEnv }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
      {{- with .Values.store.secretName }}
      envFrom:
        - secretRef: {name: {{ . }}}
      {{- end }}
      ports:
        - {name: http, containerPort: 8080, protocol: TCP}
      startupProbe:
        httpGet: {path: /v2/health/ready, port: http}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: {{ ceil (divf .Values.startupSeconds 2) | int }}
      readinessProbe:
        httpGet: {path: /v2/health/ready, port: http}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 2
      livenessProbe:
        httpGet: {path: /v2/health/live, port: http}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      securityContext: {{- include "ranker-serving.container-security" . | nindent 8 }}
      resources: {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts: {{- include "ranker-serving.mounts" . | nindent 8 }}
  volumes: {{- include "ranker-serving.volumes" . | nindent 4 }}
{{- end -}}
