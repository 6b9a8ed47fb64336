//! Escapes bytes from outside for a terminal.

use std::fmt::Write;

use serde::Serialize;

/// `bytes` as text. Bytes that are not UTF-8, and characters that would control the terminal, are escaped.
pub fn printable(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_visible(c) { shown.push(c) } else { shown.extend(c.escape_debug()) }
        }
        for byte in chunk.invalid() {
            // Writing to a string cannot fail.
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// `value` as JSON on one line. The same characters are escaped as in [`printable`].
///
/// # Errors
/// If `value` cannot be written as JSON, such as a map whose keys are no strings.
pub fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string(value)?;
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if is_visible(c) {
            shown.push(c);
        } else {
            // The character is in a string of the JSON, because all other JSON is visible.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }
    Ok(shown)
}

/// Whether a terminal shows `c`: it is no control character, and no character that reorders or hides the text around it.
pub fn is_visible(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_visible_text_are_escaped() {
        let bytes = b"\xd1\x8f \"quoted\" C:\\\x1b[2J\r\n\xff\xfe\xc2\x9b\xe2\x80\xae\x00";
        assert_eq!(printable(bytes), r#"я "quoted" C:\\u{1b}[2J\r\n\xff\xfe\u{9b}\u{202e}\0"#);
    }

    #[test]
    fn escaped_json_has_the_same_meaning() {
        let text = "я \"quoted\" \u{1b}[2J \u{7f}\u{9b}\u{202e}\u{e0001}\n";
        let line = json_line(&text).expect("JSON");
        assert!(line.chars().all(is_visible), "{line:?}");
        assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), text);
    }
}
