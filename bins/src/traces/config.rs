//! The standard variables `OTEL_*` that configure tracing.

use std::path::PathBuf;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry_sdk::trace::Sampler;
use percent_encoding::percent_decode_str;
use url::Url;

use crate::process::{EnvError, Variables};

/// The protocols of OTLP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

/// How spans are sampled, kept and exported.
#[derive(Clone, Debug)]
pub struct TracesConfig {
    pub(super) protocol: Protocol,
    /// The address of the receiver; for HTTP, with the path.
    pub(super) endpoint: String,
    pub(super) headers: HeaderMap,
    pub(super) timeout: Duration,
    /// The file of the certificate authority, and the variable that names it.
    pub(super) certificate: Option<(String, PathBuf)>,
    pub(super) is_compressed: bool,
    pub(super) service_name: String,
    pub(super) resource: Vec<(String, String)>,
    pub(super) sampler: Sampler,
    pub(super) max_queue_size: usize,
    pub(super) max_batch_size: usize,
    pub(super) delay: Duration,
}

impl TracesConfig {
    /// Reads the variables. `service` is the default name of the service. Returns `None` if tracing is off: it is on if
    /// `OTEL_TRACES_EXPORTER` is `otlp`, or if an endpoint is set.
    pub(crate) fn read(variables: &mut Variables, service: &str) -> Option<Self> {
        variables.group("Tracing (OpenTelemetry)");
        let is_disabled: Option<bool> = variables.parse(
            "OTEL_SDK_DISABLED",
            "false",
            "turn tracing off, whatever the other variables say",
            "true or false",
            |text| text.to_lowercase().parse().ok(),
        );
        let exporter = variables.parse(
            "OTEL_TRACES_EXPORTER",
            "",
            "how spans are exported: otlp, none; default: otlp if an endpoint is set",
            "otlp, none",
            |text| matches!(text, "otlp" | "none").then(|| text == "otlp"),
        );
        let has_endpoint =
            variables.has("OTEL_EXPORTER_OTLP_ENDPOINT") || variables.has("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
        let is_on = is_disabled != Some(true) && exporter.unwrap_or(has_endpoint);
        let config = variables.unless(!is_on, |variables| Self::read_all(variables, service));
        is_on.then_some(config)
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.endpoint.starts_with("https://")
    }

    fn read_all(variables: &mut Variables, service: &str) -> Self {
        let protocol =
            either(variables, "PROTOCOL", "http/protobuf", "protocol of exports", "http/protobuf, grpc", |text| {
                match text {
                    "http/protobuf" => Some(Protocol::Http),
                    "grpc" => Some(Protocol::Grpc),
                    _ => None,
                }
            });
        let protocol = protocol.unwrap_or(Protocol::Http);
        let endpoint = endpoint(variables, protocol);
        let headers = headers(variables);
        let millis = |text: &str| text.parse().ok().filter(|millis| (1..=60_000).contains(millis));
        let accepted = "milliseconds from 1 to 60000";
        let timeout =
            either(variables, "TIMEOUT", "10000", "longest time of an export, in milliseconds", accepted, millis);
        let meaning = "PEM file of the certificate authority of the receiver";
        let certificate = either(variables, "CERTIFICATE", "", meaning, "a path", |text| Some(PathBuf::from(text)));
        let certificate = certificate.map(|path| (chosen(variables, "CERTIFICATE"), path));
        let compression = either(variables, "COMPRESSION", "none", "compression of exports", "none, gzip", |text| {
            matches!(text, "none" | "gzip").then(|| text == "gzip")
        });
        let (max_queue_size, max_batch_size, delay) = queue(variables);
        Self {
            protocol,
            endpoint,
            headers,
            timeout: Duration::from_millis(timeout.unwrap_or(10_000)),
            certificate,
            is_compressed: compression.unwrap_or(false),
            service_name: variables.text("OTEL_SERVICE_NAME", service, "name of the service in traces"),
            resource: pairs(
                variables,
                "OTEL_RESOURCE_ATTRIBUTES",
                "attributes of the program in traces, as name=value,name=value; for example deployment.environment.name=test",
            ),
            sampler: sampler(variables),
            max_queue_size,
            max_batch_size,
            delay,
        }
    }
}

/// The names of the variable for all signals, and of the variable for traces alone, which overrides it.
fn names(suffix: &str) -> (String, String) {
    (format!("OTEL_EXPORTER_OTLP_{suffix}"), format!("OTEL_EXPORTER_OTLP_TRACES_{suffix}"))
}

/// The name of the variable that counts.
fn chosen(variables: &Variables, suffix: &str) -> String {
    let (general, traces) = names(suffix);
    if variables.has(&traces) { traces } else { general }
}

/// Reads the variable for all signals, or the variable for traces if it is set.
fn either<T>(
    variables: &mut Variables,
    suffix: &str,
    default: &str,
    meaning: &str,
    accepted: &str,
    parse: impl Fn(&str) -> Option<T>,
) -> Option<T> {
    // An empty default is no value.
    let parse = |text: &str| Some(text).filter(|text| !text.is_empty()).and_then(&parse);
    let (general, traces) = names(suffix);
    let is_overridden = variables.has(&traces);
    let value =
        variables.unless(is_overridden, |variables| variables.parse(&general, default, meaning, accepted, parse));
    let traces = variables.parse(&traces, "", &format!("instead of {general}"), accepted, parse);
    if is_overridden { traces } else { value }
}

/// The address of the receiver. The general endpoint is a base, to which HTTP adds the path of traces.
fn endpoint(variables: &mut Variables, protocol: Protocol) -> String {
    let meaning = "address of the receiver; default: http://localhost:4318, or port 4317 with the protocol grpc";
    let base = url(variables, "OTEL_EXPORTER_OTLP_ENDPOINT", meaning);
    let meaning = "address of the receiver of traces with its path, instead of OTEL_EXPORTER_OTLP_ENDPOINT";
    let whole = url(variables, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", meaning);
    whole.unwrap_or_else(|| match protocol {
        Protocol::Grpc => base.unwrap_or_else(|| "http://localhost:4317".to_owned()),
        Protocol::Http => {
            let base = base.as_deref().unwrap_or("http://localhost:4318");
            format!("{}/v1/traces", base.trim_end_matches('/'))
        }
    })
}

/// Reads a URL. Log lines have the URL, so it must not hold a secret.
fn url(variables: &mut Variables, name: &str, meaning: &str) -> Option<String> {
    let text = variables.optional_text(name, "", meaning)?;
    let is_url = Url::parse(&text).is_ok_and(|url| {
        let is_open = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        matches!(url.scheme(), "http" | "https") && url.has_host() && is_open
    });
    if !is_url {
        let accepted = "a URL that begins with http:// or https://, without password and query; \
                        OTEL_EXPORTER_OTLP_HEADERS may hold a secret";
        variables.problem(match text.contains(['@', '?']) {
            true => EnvError::secret(name, accepted),
            false => EnvError::new(name, &text, accepted),
        });
    }
    Some(text)
}

/// Reads the headers of each export. They may hold a secret, so a problem does not show the value.
fn headers(variables: &mut Variables) -> HeaderMap {
    let (general, traces) = names("HEADERS");
    let is_overridden = variables.has(&traces);
    let meaning = "headers of each export, as name=value,name=value";
    let value = variables.unless(is_overridden, |variables| pairs(variables, &general, meaning));
    let of_traces = pairs(variables, &traces, &format!("instead of {general}"));
    let mut headers = HeaderMap::new();
    for (name, value) in if is_overridden { of_traces } else { value } {
        let value = value.parse::<HeaderValue>().ok().filter(|_| value.is_ascii());
        let (Ok(name), Some(mut value)) = (name.parse::<HeaderName>(), value) else {
            let accepted = "name=value,name=value with names of HTTP headers and values in ASCII";
            variables.problem(EnvError::secret(&chosen(variables, "HEADERS"), accepted));
            return HeaderMap::new();
        };
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    headers
}

/// Reads the size of the queue, the size of a batch, and the time between two exports.
fn queue(variables: &mut Variables) -> (usize, usize, Duration) {
    let meaning = "largest number of spans that wait for their export; further spans are dropped and counted";
    let queue = variables.number("OTEL_BSP_MAX_QUEUE_SIZE", 2_048, 1..=1_000_000, meaning);
    let meaning = "largest number of spans in an export";
    let batch = variables.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", queue.min(512), 1..=queue, meaning);
    let meaning = "longest time between two exports, in milliseconds";
    let delay = variables.number("OTEL_BSP_SCHEDULE_DELAY", 5_000, 1..=600_000, meaning);
    (queue as usize, batch as usize, Duration::from_millis(delay))
}

fn sampler(variables: &mut Variables) -> Sampler {
    let name = variables.choice(
        "OTEL_TRACES_SAMPLER",
        &[
            "parentbased_always_on",
            "parentbased_always_off",
            "parentbased_traceidratio",
            "always_on",
            "always_off",
            "traceidratio",
        ],
        "which traces are recorded",
    );
    let ratio =
        variables.share("OTEL_TRACES_SAMPLER_ARG", 1.0, "share of the traces that a traceidratio sampler records");
    let sampler = match name.trim_start_matches("parentbased_") {
        "always_off" => Sampler::AlwaysOff,
        "traceidratio" => Sampler::TraceIdRatioBased(ratio),
        _ => Sampler::AlwaysOn,
    };
    if name.starts_with("parentbased_") { Sampler::ParentBased(Box::new(sampler)) } else { sampler }
}

/// Reads pairs of the form `name=value,name=value`, with percent-encoded values. A value may be a secret, so a problem does not
/// show it.
fn pairs(variables: &mut Variables, name: &str, meaning: &str) -> Vec<(String, String)> {
    let Some(text) = variables.optional_text(name, "", meaning) else { return Vec::new() };
    let pair = |pair: &str| {
        let (key, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?.into_owned();
        let key = key.trim();
        let is_name = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        (is_name && !value.contains(char::is_control)).then(|| (key.to_owned(), value))
    };
    let pairs = text.split(',').filter(|text| !text.trim().is_empty()).map(pair).collect::<Option<_>>();
    pairs.unwrap_or_else(|| {
        variables.problem(EnvError::secret(name, "name=value,name=value with percent-encoded values"));
        Vec::new()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[(&str, &str)]) -> Result<Option<TracesConfig>, String> {
        let values = values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut variables = Variables::from_values(values);
        let config = TracesConfig::read(&mut variables, "netagg-api");
        variables.check().map(|()| config).map_err(|problems| problems[0].to_string())
    }

    #[test]
    fn tracing_is_on_with_an_exporter_or_an_endpoint() {
        const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        let is_on = |values: &[_]| read(values).expect("valid").is_some();
        assert!(!is_on(&[]));
        assert!(!is_on(&[("OTEL_SERVICE_NAME", "x"), ("OTEL_TRACES_SAMPLER", "always_on")]));
        assert!(is_on(&[("OTEL_TRACES_EXPORTER", "otlp")]));
        assert!(is_on(&[ENDPOINT]));
        assert!(!is_on(&[ENDPOINT, ("OTEL_TRACES_EXPORTER", "none")]));
        assert!(!is_on(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]));
    }

    #[test]
    fn variables_for_traces_override_the_general_variables() {
        let base = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/");
        let endpoint = |values: &[_]| read(values).expect("valid").expect("on").endpoint;
        assert_eq!(endpoint(&[base]), "http://collector:4318/v1/traces");
        assert_eq!(endpoint(&[base, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), base.1);
        assert_eq!(endpoint(&[base, ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "https://t/x")]), "https://t/x");
        assert_eq!(endpoint(&[("OTEL_TRACES_EXPORTER", "otlp")]), "http://localhost:4318/v1/traces");
        let config = read(&[
            base,
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "5"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "7"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a%20b, y=2"),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "0.01"),
        ]);
        let config = config.expect("valid").expect("on");
        assert_eq!(config.timeout, Duration::from_millis(7));
        assert_eq!((&config.headers["x-key"], &config.headers["y"]), (&"a b".parse().unwrap(), &"2".parse().unwrap()));
        assert_eq!(config.service_name, "netagg-api");
        assert!(format!("{:?}", config.sampler).contains("TraceIdRatioBased(0.01)"), "{:?}", config.sampler);
    }

    #[test]
    fn a_wrong_value_is_a_problem_with_the_accepted_values_and_without_secrets() {
        let on = ("OTEL_TRACES_EXPORTER", "otlp");
        for (name, value, accepted) in [
            ("OTEL_TRACES_EXPORTER", "jaeger", "otlp, none"),
            ("OTEL_SDK_DISABLED", "yes", "true or false"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317", "http://"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://localhost:99999", "http://"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://user:secret @collector", "without password"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "thrift", "http/protobuf, grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "milliseconds"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zip", "none, gzip"),
            ("OTEL_TRACES_SAMPLER", "sometimes", "traceidratio"),
            ("OTEL_TRACES_SAMPLER_ARG", "2", "from 0 to 1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0", "from 1"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4096", "from 1 to 2048"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "my secret", "name=value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "my(key=secret ", "names of HTTP headers"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "key=%C2%A0secret ", "values in ASCII"),
        ] {
            let is_switch = name == on.0;
            let problem = if is_switch { read(&[(name, value)]) } else { read(&[on, (name, value)]) };
            let problem = problem.expect_err(name);
            assert!(problem.starts_with(name) && problem.contains(accepted), "{problem}");
            assert!(!problem.contains("secret "), "{problem}");
        }
    }
}
