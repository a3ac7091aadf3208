{{/* Labels of every object. The names are fixed: a cluster has one agent. */}}
{{- define "nodeagent.labels" -}}
app.kubernetes.io/name: nodeagent
app.kubernetes.io/part-of: virtnode
{{- end }}

{{- define "nodeagent.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{/* The port is a value of its own, since probes and host ports need it too. */}}
{{- define "nodeagent.config" -}}
{{- $config := .Values.config -}}
{{- if ne (int .Values.agent.port) 9477 -}}
{{- $config = merge (dict "web" (dict "listenAddress" (printf ":%d" (int .Values.agent.port)))) $config -}}
{{- end -}}
{{ toYaml $config }}
{{- end }}
