{{/*
Values that the schema accepts one by one, and that cannot be used together. The chart names all of them at once.
Each check renders a line "value: reason", or nothing.
*/}}

{{- define "netagg.validate.required" -}}
{{- if not .Values.image.repository }}
image.repository: set the registry and the name of your netagg image
{{- end }}
{{- if not .Values.postgres.existingSecret }}
postgres.existingSecret: set the name of a Secret with the credentials of PostgreSQL
{{- end }}
{{- if not (or .Values.postgres.host .Values.postgres.urlKey) }}
postgres.host: set the host of PostgreSQL, or set postgres.urlKey to a key of the Secret that has the whole address
{{- end }}
{{- if not .Values.kafka.brokers }}
kafka.brokers: set the brokers: host:port,host:port
{{- end }}
{{- end }}

{{- define "netagg.validate.kafka" -}}
{{- with .Values.kafka }}
{{- if eq .topic .dlqTopic }}
kafka.dlqTopic: it must differ from kafka.topic, because netagg would read dead letters as events
{{- end }}
{{- if eq .topic (printf "%s.replayed" .dlqTopic) }}
kafka.topic: it must differ from kafka.dlqTopic with .replayed, which is the topic of the markers of replays
{{- end }}
{{- if eq .ingestorGroup .aggregatorGroup }}
kafka.aggregatorGroup: it must differ from kafka.ingestorGroup, because each service must read all messages
{{- end }}
{{- if and .secretOptions (not .existingSecret) }}
kafka.existingSecret: set the name of the Secret that has the keys in kafka.secretOptions
{{- end }}
{{- /* RESERVED in netagg-kafka/src/config.rs */}}
{{- $reserved := list
  "acks" "auto.offset.reset" "bootstrap.servers" "delivery.report.only.error" "enable.auto.commit" "enable.auto.offset.store"
  "enable.idempotence" "enable.partition.eof" "group.id" "isolation.level" "offset.store.method" "statistics.interval.ms"
  "transactional.id"
}}
{{- $secretOptions := .secretOptions }}
{{- range $property, $value := .options }}
{{- if regexMatch "password|passphrase|secret|\\.pem|oauthbearer\\.config" $property }}
kafka.options: {{ $property }} is a secret, so it belongs to kafka.secretOptions
{{- end }}
{{- if hasKey $secretOptions $property }}
kafka.options: {{ $property }} is also in kafka.secretOptions; keep only one of both
{{- end }}
{{- end }}
{{- range $property := concat (keys .options) (keys .secretOptions) | uniq | sortAlpha }}
{{- if has $property $reserved }}
kafka.options: {{ $property }} cannot be set, because a guarantee of netagg depends on it
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "netagg.validate.services" -}}
{{- if and (eq .Values.ingestor.mode "combined") .Values.aggregator.enabled }}
aggregator.enabled: it must be false if ingestor.mode is combined, because the ingestor then does the work of the aggregator
{{- end }}
{{- $partitions := int .Values.kafka.partitions }}
{{- $keda := .Values.keda }}
{{- $protocol := index .Values.kafka.options "security.protocol" | default "plaintext" | lower }}
{{- range $name := list "ingestor" "aggregator" }}
{{- $service := index $.Values $name }}
{{- if or (eq $name "ingestor") $.Values.aggregator.enabled }}
{{- if gt (int $service.replicas) $partitions }}
{{ $name }}.replicas: {{ $service.replicas }} is more than kafka.partitions, {{ $partitions }}; further replicas would be idle
{{- end }}
{{- if $service.autoscaling.enabled }}
{{- if gt (int $service.autoscaling.maxReplicas) $partitions }}
{{ $name }}.autoscaling.maxReplicas: {{ $service.autoscaling.maxReplicas }} is more than kafka.partitions, {{ $partitions }}; further replicas would be idle
{{- end }}
{{- if and (ne $protocol "plaintext") (not $keda.authenticationRef) }}
keda.authenticationRef: kafka.options has security.protocol {{ $protocol }}; set the name of a TriggerAuthentication, with which KEDA reads the lag of the {{ $name }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name := list "ingestor" "aggregator" "api" }}
{{- $service := index $.Values $name }}
{{- with $service.autoscaling }}
{{- if and .enabled (gt (int .minReplicas) (int .maxReplicas)) }}
{{ $name }}.autoscaling.minReplicas: {{ .minReplicas }} is more than {{ $name }}.autoscaling.maxReplicas, {{ .maxReplicas }}
{{- end }}
{{- end }}
{{- $limit := $service.resources.limits.memory }}
{{- if and (hasSuffix "Mi" $limit) (lt (trimSuffix "Mi" $limit | int) 256) }}
{{ $name }}.resources.limits.memory: {{ $limit }} is less than 256Mi, which the service may use
{{- end }}
{{- end }}
{{- end }}

{{- define "netagg.validate.api" -}}
{{- with .Values.api }}
{{- if contains "jwt" .auth }}
{{- range $name, $value := .jwt }}
{{- if not $value }}
api.jwt.{{ $name }}: api.auth has jwt, so the API needs this value
{{- end }}
{{- end }}
{{- end }}
{{- if and .tls.clientCaKey (not .tls.existingSecret) }}
api.tls.existingSecret: set the name of the Secret that has the key in api.tls.clientCaKey, and the certificate of the API
{{- end }}
{{- end }}
{{- range $name := list "http" "grpc" }}
{{- $ingress := index $.Values.ingress $name }}
{{- if and $ingress.enabled (not $ingress.hosts) }}
ingress.{{ $name }}.hosts: set at least one host
{{- end }}
{{- end }}
{{- with .Values.ingress }}
{{- if and .http.enabled .grpc.enabled }}
{{- $httpHosts := .http.hosts }}
{{- range .grpc.hosts }}
{{- if has . $httpHosts }}
ingress.grpc.hosts: {{ . }} is also in ingress.http.hosts; gRPC needs a host of its own
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "netagg.validate.surroundings" -}}
{{- if and .Values.ca.configMap .Values.ca.secret }}
ca.secret: ca.configMap is set, too; keep only one of both
{{- end }}
{{- if and .Values.monitoring.serviceMonitor.enabled .Values.networkPolicy.enabled (not .Values.networkPolicy.opsFrom) }}
networkPolicy.opsFrom: name the peers of Prometheus, because monitoring.serviceMonitor.enabled is true and the network policy closes the ops ports
{{- end }}
{{- end }}

{{- define "netagg.validate" -}}
{{- $problems := list -}}
{{- range $part := list "required" "kafka" "services" "api" "surroundings" -}}
{{- range $line := include (printf "netagg.validate.%s" $part) $ | splitList "\n" -}}
{{- if trim $line -}}
{{- $problems = append $problems (printf "  - %s" (trim $line)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $problems -}}
{{- printf "\n\nThe chart cannot use these values:\n%s\n" ($problems | uniq | join "\n") | fail -}}
{{- end -}}
{{- end }}
