//! Reads the user and the parameters from a URL.

use percent_encoding::percent_decode_str;

use crate::parameters::Parameters;

const ENCODING: &str = "percent-encoded UTF-8";

/// Reads the user from a path that ends in `/{user_id}/` and another segment.
pub(super) fn read_user_id(path: &str, parameters: &mut Parameters) {
    let encoded = path.rsplit('/').nth(1).unwrap_or_default();
    match decode(encoded) {
        Some(user_id) => parameters.add("user_id", user_id),
        None => parameters.add_problem("user_id", encoded, ENCODING),
    }
}

/// Reads `name=value&…`. A name that is not in `known`, an empty value and a broken encoding are problems.
pub(super) fn read(query: Option<&str>, known: &[&'static str], parameters: &mut Parameters) {
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let name = decode_form(name).unwrap_or_else(|| name.to_owned());
        let Some(name) = known.iter().find(|known| **known == name) else {
            let value = decode_form(value).unwrap_or_else(|| value.to_owned());
            parameters.add_problem(&name, &format!("an unknown parameter, {value}"), &known.join(", "));
            continue;
        };
        match decode_form(value) {
            None => parameters.add_problem(name, value, ENCODING),
            Some(value) if value.is_empty() => {
                parameters.add_problem(name, "an empty value", "a value, or the parameter left out");
            }
            Some(value) => parameters.add(name, value),
        }
    }
}

/// Decodes a part of a query like [`decode`], with `+` as a space.
fn decode_form(text: &str) -> Option<String> {
    decode(&text.replace('+', " "))
}

/// Removes the percent-encoding of `text`. Returns `None` if an escape is broken or the bytes are not UTF-8.
fn decode(text: &str) -> Option<String> {
    let is_escape = |rest: &str| rest.as_bytes().get(..2).is_some_and(|hex| hex.iter().all(u8::is_ascii_hexdigit));
    if !text.split('%').skip(1).all(is_escape) {
        return None;
    }
    Some(percent_decode_str(text).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_decoded_or_rejected() {
        for (text, decoded) in [
            ("", Some("")),
            ("a+b", Some("a b")),
            ("a%2Bb%2fc%25", Some("a+b/c%")),
            ("%D0%B6ж", Some("жж")),
            ("%00", Some("\0")),
            ("%", None),
            ("%4", None),
            ("%4g", None),
            ("%%41", None),
            ("a%ж", None),
            ("%FF", None),
            ("%D0", None),
            ("%ED%A0%80", None),
        ] {
            assert_eq!(decode_form(text).as_deref(), decoded, "{text}");
        }
    }
}
