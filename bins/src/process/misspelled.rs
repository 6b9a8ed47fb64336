//! Finds misspelled variables: names that look like a variable of netagg and have no effect.

use std::cmp::Reverse;

use strsim::damerau_levenshtein;

/// A name may contain one mistake for each group of this many letters, and at least one mistake.
const LETTERS_PER_MISTAKE: usize = 8;

/// The name in `known` that `name` means: by `synonyms`, or else the name with the nearest spelling. Returns `None` if `name`
/// is in `known`, or belongs to another program. Names with a prefix in `own_prefixes` belong to no other program.
pub(crate) fn meant<'a>(
    name: &str,
    value: &str,
    known: &'a [String],
    own_prefixes: &[&str],
    synonyms: &[(&str, &str)],
) -> Option<&'a str> {
    if known.iter().any(|known| known == name) || is_service_link(name, value) || is_of_other_signal(name) {
        return None;
    }
    let written = normal(name);
    if let Some((_, ours)) = synonyms.iter().find(|(synonym, _)| normal(synonym) == written) {
        return known.iter().map(String::as_str).find(|known| known == ours);
    }
    let distance = |known: &String| damerau_levenshtein(&written, &normal(known));
    // If two names are equally near, the name with the longer common beginning wins.
    let common = |known: &String| written.chars().zip(normal(known).chars()).take_while(|(a, b)| a == b).count();
    let nearest = known
        .iter()
        .filter(|known| !known.ends_with('*'))
        .min_by_key(|known| (distance(known), Reverse(common(known))))?;
    let is_near = distance(nearest) <= (name.len() / LETTERS_PER_MISTAKE).max(1);
    let is_ours = own_prefixes.iter().any(|prefix| name.to_uppercase().starts_with(prefix));
    (is_near || is_ours).then_some(nearest)
}

/// Whether the variable configures metrics or logs of OpenTelemetry. A whole cluster may set them, and netagg exports traces only.
fn is_of_other_signal(name: &str) -> bool {
    name.starts_with("OTEL_") && ["METRIC", "LOG"].iter().any(|signal| name.contains(signal))
}

fn normal(name: &str) -> String {
    name.to_uppercase().replace(['_', '-', '.'], "")
}

/// Whether Kubernetes has set the variable for a Service of the pod's namespace. Examples:
/// `REDIS_PORT=tcp://10.43.0.9:6379`, `REDIS_SERVICE_HOST`, `REDIS_SERVICE_PORT_CLIENT`, `REDIS_PORT_6379_TCP_ADDR`.
pub(crate) fn is_service_link(name: &str, value: &str) -> bool {
    let (_, after_port) = name.rsplit_once("_PORT_").unwrap_or_default();
    let is_of_port = after_port.split_once('_').is_some_and(|(port, rest)| {
        port.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].iter().any(|of| rest.starts_with(of))
    });
    let is_of_service =
        name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_");
    is_of_port || is_of_service || ((name.ends_with("_PORT") || name.ends_with("_HOST")) && is_link(value))
}

/// Whether `value` is an address as Kubernetes sets it in `NAME_PORT`.
pub(crate) fn is_link(value: &str) -> bool {
    let address = ["tcp://", "udp://", "sctp://"].iter().find_map(|scheme| value.strip_prefix(scheme));
    address.and_then(|address| address.rsplit_once(':')).is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}
