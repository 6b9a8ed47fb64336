//! Bytes from outside, made fit for a terminal.

use std::fmt::Write;

use serde::Serialize;

/// `bytes` as text. What is no UTF-8, or would act on a terminal instead of being seen, is escaped.
pub fn printable(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if is_visible(c) { shown.push(c) } else { shown.extend(c.escape_debug()) }
        }
        for byte in chunk.invalid() {
            // writing to a string cannot fail
            let _ = write!(shown, "\\x{byte:02x}");
        }
    }
    shown
}

/// `value` as JSON on one line, with escapes where [`printable`] has them.
///
/// # Errors
/// If `value` is not JSON, such as a map whose keys are no strings.
pub fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let json = serde_json::to_string(value)?;
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        if is_visible(c) {
            shown.push(c);
        } else {
            // within a string of the JSON, as all else of it is visible
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(shown, "\\u{unit:04x}");
            }
        }
    }
    Ok(shown)
}

/// Whether `c` is neither a control character nor one that reorders or hides the text around it.
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
    fn nothing_reaches_the_terminal_but_text() {
        let bytes = b"\xd1\x8f \"quoted\" C:\\\x1b[2J\r\n\xff\xfe\xc2\x9b\xe2\x80\xae\x00";
        assert_eq!(printable(bytes), r#"я "quoted" C:\\u{1b}[2J\r\n\xff\xfe\u{9b}\u{202e}\0"#);
    }

    #[test]
    fn json_means_the_same_after_it_was_escaped() {
        let text = "я \"quoted\" \u{1b}[2J \u{7f}\u{9b}\u{202e}\u{e0001}\n";
        let line = json_line(&text).expect("JSON");
        assert!(line.chars().all(is_visible), "{line:?}");
        assert_eq!(serde_json::from_str::<String>(&line).expect("JSON"), text);
    }
}
