{{/* SPDX-License-Identifier: Apache-2.0 */}}
{{- define "otelauto.name" -}}
{{- if contains "otelauto" .Release.Name }}{{ .Release.Name }}{{ else }}{{ .Release.Name }}-otelauto{{ end }}
{{- end }}

{{- define "otelauto.selector" -}}
app.kubernetes.io/name: otelauto
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "otelauto.labels" -}}
{{ include "otelauto.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end }}

{{- define "otelauto.image" -}}
{{- with .Values.image }}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end }}
{{- end }}

{{- define "otelauto.serviceAccount" -}}
{{- .Values.serviceAccount.name | default (include "otelauto.name" .) }}
{{- end }}

{{/* Whether the cluster has the field; before 1.30 it was an annotation. */}}
{{- define "otelauto.appArmorField" -}}
{{- if semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version }}yes{{ end }}
{{- end }}

{{- define "otelauto.otlpEndpoint" -}}
{{- if .Values.otlpEndpoint }}{{ .Values.otlpEndpoint }}
{{- else if .Values.agent.enabled }}http://{{ include "otelauto.name" . }}-agent.{{ .Release.Namespace }}.svc:4318
{{- end }}
{{- end }}

{{/* The instrumenter's configuration: what the chart sets, and `config` over it. */}}
{{- define "otelauto.config" -}}
{{- $own := dict "prometheus_export" (dict "port" (int .Values.metrics.port) "host" "0.0.0.0") }}
{{- $_ := set $own "internal_metrics" (dict "prometheus" (dict "port" (int .Values.metrics.port))) }}
{{- $kubernetes := dict "node_name" "${env:NODE_NAME}" }}
{{- if .Values.clusterName }}{{- $_ := set $kubernetes "cluster_name" .Values.clusterName }}{{- end }}
{{- $_ := set $own "attributes" (dict "kubernetes" $kubernetes) }}
{{- with include "otelauto.otlpEndpoint" . }}
{{- $_ := set $own "otel_traces_export" (dict "endpoint" .) }}
{{- end }}
{{- if and .Values.agent.enabled (not .Values.otlpEndpoint) }}
{{- $_ := set $own "otel_metrics_export" (dict "endpoint" (include "otelauto.otlpEndpoint" .)) }}
{{- end }}
{{- toYaml (mergeOverwrite $own (deepCopy .Values.config)) }}
{{- end }}

{{/* The agent's pipeline. */}}
{{- define "otelauto.pipeline" -}}
{{- if .Values.agent.config }}{{ .Values.agent.config }}
{{- else -}}
otelcol.receiver.otlp "default" {
  grpc {
    endpoint = "0.0.0.0:4317"
  }

  http {
    endpoint = "0.0.0.0:4318"
  }

  output {
    metrics = [otelcol.processor.batch.default.input]
    traces  = [otelcol.processor.batch.default.input]
  }
}

otelcol.processor.batch "default" {
  output {
    metrics = [otelcol.exporter.prometheus.default.input]
    traces  = [otelcol.exporter.otlp.default.input]
  }
}

otelcol.exporter.prometheus "default" {
  forward_to = [prometheus.remote_write.default.receiver]
}

prometheus.remote_write "default" {
  endpoint {
    url = {{ .Values.agent.remoteWriteUrl | quote }}
  }
}

otelcol.exporter.otlp "default" {
  client {
    endpoint = {{ .Values.agent.tracesEndpoint | quote }}

    tls {
      insecure = {{ .Values.agent.tracesInsecure }}
    }
  }
}
{{- end }}
{{- end }}
