{{/* Names and labels */}}

{{- define "netagg.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" -}}
{{- end }}

{{/* 40 characters leave room for the suffixes of the objects. */}}
{{- define "netagg.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else if contains (include "netagg.name" .) .Release.Name -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "netagg.name" .) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{/* Argument: list of root and component */}}
{{- define "netagg.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ include "netagg.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{- define "netagg.labels" -}}
{{- $root := index . 0 -}}
{{ include "netagg.selectorLabels" . }}
app.kubernetes.io/part-of: netagg
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "netagg.image" -}}
{{- if .Values.image.digest -}}
{{- printf "%s@%s" .Values.image.repository .Values.image.digest -}}
{{- else -}}
{{- printf "%s:%s" .Values.image.repository (default .Chart.AppVersion .Values.image.tag) -}}
{{- end -}}
{{- end }}

{{/* Whether a service needs more than one pod. Argument: the values of the service */}}
{{- define "netagg.isReplicated" -}}
{{- if .autoscaling.enabled -}}
{{- if gt (int .autoscaling.maxReplicas) 1 }}true{{ end -}}
{{- else if gt (int .replicas) 1 -}}true
{{- end -}}
{{- end }}

{{/* The port of an address host:port or https://host:port/path; the second argument is the default. */}}
{{- define "netagg.port" -}}
{{- $port := regexFind ":[0-9]+$" (regexReplaceAll "^[a-z]+://([^/]+).*$" (trim (index . 0)) "${1}") -}}
{{- trimPrefix ":" $port | default (index . 1) -}}
{{- end }}

{{/* The ports of the brokers, as a JSON object {"ports": [...]} */}}
{{- define "netagg.kafkaPorts" -}}
{{- $ports := list -}}
{{- range splitList "," .Values.kafka.brokers -}}
{{- $ports = append $ports (include "netagg.port" (list . "9092") | int) -}}
{{- end -}}
{{- range .Values.networkPolicy.kafkaPorts -}}
{{- $ports = append $ports (int .) -}}
{{- end -}}
{{- dict "ports" (uniq $ports) | toJson -}}
{{- end }}

{{- define "netagg.hasKafkaTls" -}}
{{- if contains "ssl" (lower (toString (index .Values.kafka.options "security.protocol"))) }}true{{ end -}}
{{- end }}

{{- define "netagg.hasCa" -}}
{{- if or .Values.ca.configMap .Values.ca.secret }}true{{ end -}}
{{- end }}

{{- define "netagg.hasRedis" -}}
{{- if or .Values.redis.existingSecret .Values.redis.host }}true{{ end -}}
{{- end }}

{{/* Environment variables. Each list item is a complete EnvVar. */}}

{{/* Argument: list of a name, a Secret and its key */}}
{{- define "netagg.env.secret" -}}
- name: {{ index . 0 }}
  valueFrom:
    secretKeyRef:
      name: {{ index . 1 }}
      key: {{ index . 2 }}
{{- end }}

{{/* YAML reads integers as floating-point numbers: 5000000 must not become 5e+06. */}}
{{- define "netagg.text" -}}
{{- if kindIs "float64" . }}{{ int64 . }}{{ else }}{{ toString . }}{{ end -}}
{{- end }}

{{- define "netagg.env.settings" -}}
{{- range $name, $value := .Values.settings }}
- name: {{ $name }}
  value: {{ include "netagg.text" $value | quote }}
{{- end }}
{{- if include "netagg.hasCa" . }}
- name: SSL_CERT_FILE
  value: /etc/netagg/ca/ca.crt
{{- if .Values.ca.withPublicAuthorities }}
- name: SSL_CERT_DIR
  value: /etc/ssl/certs
{{- end }}
{{- end }}
{{- end }}

{{- define "netagg.env.postgres" -}}
{{- with .Values.postgres }}
{{- if .urlKey }}
{{ include "netagg.env.secret" (list "DATABASE_URL" .existingSecret .urlKey) }}
{{- else }}
- name: POSTGRES_HOST
  value: {{ .host | quote }}
- name: POSTGRES_PORT
  value: {{ .port | int | quote }}
- name: POSTGRES_DB
  value: {{ .database | quote }}
- name: POSTGRES_SSLMODE
  value: {{ .sslMode }}
{{ include "netagg.env.secret" (list "POSTGRES_USER" .existingSecret .usernameKey) }}
{{ include "netagg.env.secret" (list "POSTGRES_PASSWORD" .existingSecret .passwordKey) }}
{{- end }}
{{- end }}
{{- end }}

{{- define "netagg.env.kafkaOption" -}}
KAFKA_OPT_{{ . | upper | replace "." "_" }}
{{- end }}

{{- define "netagg.env.kafka" -}}
{{- with .Values.kafka }}
- name: KAFKA_BROKERS
  value: {{ .brokers | quote }}
- name: KAFKA_TOPIC
  value: {{ .topic | quote }}
- name: KAFKA_DLQ_TOPIC
  value: {{ .dlqTopic | quote }}
- name: KAFKA_GROUP_ID_INGESTOR
  value: {{ .ingestorGroup | quote }}
- name: KAFKA_GROUP_ID_AGGREGATOR
  value: {{ .aggregatorGroup | quote }}
{{- range $property, $value := .options }}
- name: {{ include "netagg.env.kafkaOption" $property }}
  value: {{ include "netagg.text" $value | quote }}
{{- end }}
{{- $secret := .existingSecret }}
{{- range $property, $key := .secretOptions }}
{{ include "netagg.env.secret" (list (include "netagg.env.kafkaOption" $property) $secret $key) }}
{{- end }}
{{- if .clientCertificate.existingSecret }}
- name: KAFKA_OPT_SSL_CERTIFICATE_LOCATION
  value: /etc/netagg/kafka/tls.crt
- name: KAFKA_OPT_SSL_KEY_LOCATION
  value: /etc/netagg/kafka/tls.key
{{- end }}
{{- end }}
{{- $hasOwnLocation := hasKey .Values.kafka.options "ssl.ca.location" }}
{{- if and (include "netagg.hasCa" .) (include "netagg.hasKafkaTls" .) (not $hasOwnLocation) }}
- name: KAFKA_OPT_SSL_CA_LOCATION
  value: /etc/netagg/ca/ca.crt
{{- end }}
{{- end }}

{{- define "netagg.env.redis" -}}
{{- with .Values.redis }}
{{- if .existingSecret }}
{{ include "netagg.env.secret" (list "REDIS_URL" .existingSecret .urlKey) }}
{{- else if .host }}
- name: REDIS_HOST
  value: {{ .host | quote }}
- name: REDIS_PORT
  value: {{ .port | int | quote }}
{{- end }}
{{- end }}
{{- end }}

{{- define "netagg.env.tracing" -}}
{{- with .Values.tracing }}
{{- if .endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ .endpoint | quote }}
- name: OTEL_EXPORTER_OTLP_PROTOCOL
  value: {{ .protocol }}
{{- if .headers.existingSecret }}
{{ include "netagg.env.secret" (list "OTEL_EXPORTER_OTLP_HEADERS" .headers.existingSecret .headers.key) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{- define "netagg.env.api" -}}
{{- with .Values.api }}
- name: API_BIND
  value: 0.0.0.0
- name: API_HTTP_PORT
  value: "8000"
- name: API_GRPC_PORT
  value: "9090"
- name: API_AUTH
  value: {{ .auth }}
{{- if contains "jwt" .auth }}
- name: API_JWT_JWKS
  value: {{ .jwt.jwks | quote }}
- name: API_JWT_ISSUER
  value: {{ .jwt.issuer | quote }}
- name: API_JWT_AUDIENCE
  value: {{ .jwt.audience | quote }}
{{- end }}
{{- if .tls.existingSecret }}
- name: API_TLS_CERT_FILE
  value: /etc/netagg/tls/tls.crt
- name: API_TLS_KEY_FILE
  value: /etc/netagg/tls/tls.key
{{- if .tls.clientCaKey }}
- name: API_TLS_CLIENT_CA_FILE
  value: /etc/netagg/tls/client-ca.crt
{{- end }}
{{- end }}
{{- with .cursorSecret }}
{{- if .existingSecret }}
{{ include "netagg.env.secret" (list "API_CURSOR_SECRET" .existingSecret .key) }}
{{- end }}
{{- end }}
{{- end }}
{{- with .Values.postgres }}
{{- if .readUrlKey }}
{{ include "netagg.env.secret" (list "DATABASE_READ_URL" .existingSecret .readUrlKey) }}
{{- end }}
{{- end }}
{{- end }}

{{/*
The template of a pod, with its metadata and its one container.

Argument: a dictionary
  root        the root context
  component   the name of the component, and of its container
  command     the command, as a list
  needs       the outside systems that the program reads variables for: postgres, kafka, redis, tracing, api
  env         more variables, as YAML
  resources   the resources of the container
  job         true for a pod that ends
  ops         the ops port of a service, and the name of its variable: {"port": 6060, "variable": "PPROF_PORT_INGESTOR"}
  annotations annotations of the pod
*/}}
{{- define "netagg.pod" -}}
{{- $root := .root -}}
{{- $values := .root.Values -}}
{{- $isApi := eq .component "api" -}}
{{- $hasCa := include "netagg.hasCa" $root -}}
{{- $hasKafkaCertificate := and (has "kafka" .needs) $values.kafka.clientCertificate.existingSecret -}}
{{- $hasApiTls := and $isApi $values.api.tls.existingSecret -}}
metadata:
  labels:
    {{- range $name, $value := $values.pod.labels }}
    {{ $name }}: {{ $value | quote }}
    {{- end }}
    {{- include "netagg.labels" (list $root .component) | nindent 4 }}
    {{- if .ops }}
    netagg/ops: "true"
    {{- end }}
  {{- with merge (dict) (.annotations | default dict) $values.pod.annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ $values.pod.serviceAccountName }}
  automountServiceAccountToken: false
  # Variables of other Services, such as POSTGRES_PORT, must not reach the programs.
  enableServiceLinks: false
  {{- with $values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
  {{- with $values.pod.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- if .job }}
  restartPolicy: Never
  {{- end }}
  # A service stops within 28 s. The API first waits in its preStop hook.
  terminationGracePeriodSeconds: {{ add 35 (ternary (int $values.api.preStopSeconds) 0 $isApi) }}
  securityContext:
    runAsNonRoot: true
    {{- if $values.pod.userId }}
    runAsUser: {{ int $values.pod.userId }}
    runAsGroup: {{ int $values.pod.userId }}
    fsGroup: {{ int $values.pod.userId }}
    {{- end }}
    seccompProfile:
      type: RuntimeDefault
  {{- with $values.pod.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.pod.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $values.pod.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if and $values.topologySpread.enabled (not .job) }}
  topologySpreadConstraints:
    {{- range $key := list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ $key }}
      whenUnsatisfiable: {{ $values.topologySpread.whenUnsatisfiable }}
      labelSelector:
        matchLabels:
          {{- include "netagg.selectorLabels" (list $root $.component) | nindent 10 }}
      # Only the pods of one version count, so that an upgrade also ends evenly spread.
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  containers:
    - name: {{ .component }}
      image: {{ include "netagg.image" $root | quote }}
      imagePullPolicy: {{ $values.image.pullPolicy }}
      command:
        {{- toYaml .command | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        runAsNonRoot: true
        capabilities:
          drop: [ALL]
        seccompProfile:
          type: RuntimeDefault
      env:
        {{- if .ops }}
        # The pod's own network: the network policy decides who reaches the port.
        - name: OPS_BIND
          value: 0.0.0.0
        - name: {{ .ops.variable }}
          value: {{ .ops.port | quote }}
        {{- end }}
        {{- with .env }}
        {{- . | trim | nindent 8 }}
        {{- end }}
        {{- with include "netagg.env.settings" $root | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- range .needs }}
        {{- with include (printf "netagg.env.%s" .) $root | trim }}
        {{- . | nindent 8 }}
        {{- end }}
        {{- end }}
      {{- if .ops }}
      ports:
        {{- if $isApi }}
        - name: http
          containerPort: 8000
        - name: grpc
          containerPort: 9090
        {{- end }}
        - name: ops
          containerPort: {{ .ops.port }}
      # Until the process answers for the first time.
      startupProbe:
        httpGet: { path: /healthz, port: ops }
        periodSeconds: 2
        timeoutSeconds: 5
        failureThreshold: 30
      # Only a process that does not answer at all for a minute is started again. A dependency that is down is no reason.
      livenessProbe:
        httpGet: { path: /healthz, port: ops }
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      readinessProbe:
        httpGet: { path: /readyz, port: ops }
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      {{- if and $isApi (gt (int $values.api.preStopSeconds) 0) }}
      lifecycle:
        preStop:
          exec:
            command: [sleep, {{ $values.api.preStopSeconds | int | quote }}]
      {{- end }}
      {{- end }}
      resources:
        {{- toYaml .resources | nindent 8 }}
      volumeMounts:
        # A heap profile needs a temporary file.
        - name: tmp
          mountPath: /tmp
        {{- if $hasCa }}
        - name: ca
          mountPath: /etc/netagg/ca
          readOnly: true
        {{- end }}
        {{- if $hasKafkaCertificate }}
        - name: kafka
          mountPath: /etc/netagg/kafka
          readOnly: true
        {{- end }}
        {{- if $hasApiTls }}
        - name: tls
          mountPath: /etc/netagg/tls
          readOnly: true
        {{- end }}
  volumes:
    - name: tmp
      emptyDir:
        sizeLimit: 64Mi
    {{- if $hasCa }}
    - name: ca
      {{- if $values.ca.configMap }}
      configMap:
        name: {{ $values.ca.configMap }}
      {{- else }}
      secret:
        secretName: {{ $values.ca.secret }}
      {{- end }}
        items:
          - key: {{ $values.ca.key }}
            path: ca.crt
    {{- end }}
    {{- if $hasKafkaCertificate }}
    - name: kafka
      secret:
        secretName: {{ $values.kafka.clientCertificate.existingSecret }}
        defaultMode: 0440
        items:
          - key: {{ $values.kafka.clientCertificate.certificateKey }}
            path: tls.crt
          - key: {{ $values.kafka.clientCertificate.privateKeyKey }}
            path: tls.key
    {{- end }}
    {{- if $hasApiTls }}
    - name: tls
      secret:
        secretName: {{ $values.api.tls.existingSecret }}
        defaultMode: 0440
        items:
          - key: {{ $values.api.tls.certificateKey }}
            path: tls.crt
          - key: {{ $values.api.tls.privateKeyKey }}
            path: tls.key
          {{- with $values.api.tls.clientCaKey }}
          - key: {{ . }}
            path: client-ca.crt
          {{- end }}
    {{- end }}
{{- end }}
