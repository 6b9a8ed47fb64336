//! Variables that look like ours and are not. The operator who set one believes that it has an effect.

use std::cmp::Reverse;

use strsim::damerau_levenshtein;

/// Letters of a name for each one that may be wrong.
const LETTERS_PER_MISTAKE: usize = 8;

/// The name of `known` that `name` stands for, by `synonyms`, or that is nearest to it; `None` if `name` is known itself, or
/// belongs to another program. No other program has names with one of `own_prefixes`.
pub(crate) fn meant<'a>(
    name: &str,
    value: &str,
    known: &'a [String],
    own_prefixes: &[&str],
    synonyms: &[(&str, &str)],
) -> Option<&'a str> {
    if known.iter().any(|known| known == name) || is_service_link(name, value) {
        return None;
    }
    let written = normal(name);
    if let Some((_, ours)) = synonyms.iter().find(|(synonym, _)| normal(synonym) == written) {
        return known.iter().map(String::as_str).find(|known| known == ours);
    }
    let distance = |known: &String| damerau_levenshtein(&written, &normal(known));
    // Of two that are equally near, the one with the longer common beginning.
    let common =
        |known: &String| written.chars().zip(normal(known).chars()).take_while(|(one, other)| one == other).count();
    let nearest = known
        .iter()
        .filter(|known| !known.ends_with('*'))
        .min_by_key(|known| (distance(known), Reverse(common(known))))?;
    let is_near = distance(nearest) <= (name.len() / LETTERS_PER_MISTAKE).max(1);
    let is_ours = own_prefixes.iter().any(|prefix| name.to_uppercase().starts_with(prefix));
    (is_near || is_ours).then_some(nearest)
}

fn normal(name: &str) -> String {
    name.to_uppercase().replace(['_', '-', '.'], "")
}

/// Whether Kubernetes has set the variable, for a Service of the pod's namespace: `REDIS_PORT=tcp://10.43.0.9:6379`,
/// `REDIS_SERVICE_HOST`, `REDIS_SERVICE_PORT_CLIENT`, `REDIS_PORT_6379_TCP_ADDR`.
pub(crate) fn is_service_link(name: &str, value: &str) -> bool {
    let (_, after_port) = name.rsplit_once("_PORT_").unwrap_or_default();
    let is_of_port = after_port.split_once('_').is_some_and(|(port, rest)| {
        port.parse::<u16>().is_ok() && ["TCP", "UDP", "SCTP"].iter().any(|of| rest.starts_with(of))
    });
    let is_of_service =
        name.ends_with("_SERVICE_HOST") || name.ends_with("_SERVICE_PORT") || name.contains("_SERVICE_PORT_");
    is_of_port || is_of_service || ((name.ends_with("_PORT") || name.ends_with("_HOST")) && is_link(value))
}

/// Whether `value` is the address that Kubernetes gives as `NAME_PORT`.
pub(crate) fn is_link(value: &str) -> bool {
    let address = ["tcp://", "udp://", "sctp://"].iter().find_map(|scheme| value.strip_prefix(scheme));
    address.and_then(|address| address.rsplit_once(':')).is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}
