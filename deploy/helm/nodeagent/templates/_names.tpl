{{/* Labels of every object. The names are fixed: a cluster has one agent. */}}
{{- define "nodeagent.labels" -}}
app.kubernetes.io/name: nodeagent
app.kubernetes.io/part-of: virtnode
{{- end }}

{{- define "nodeagent.image" -}}
{{ include "nodeagent.imageOf" (dict "image" .Values.image "version" .Chart.AppVersion) }}
{{- end }}

{{- define "nodeagent.imageOf" -}}
{{- if .image.digest -}}
{{ .image.repository }}@{{ .image.digest }}
{{- else -}}
{{ .image.repository }}:{{ .image.tag | default .version }}
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
