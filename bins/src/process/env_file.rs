//! The file `.env`: lines of `NAME=value`, with values taken as written.
//!
//! docker compose, shells and systemd read the same file, each with its own rules. The rules here substitute nothing and
//! reject no line. So a password is used as written, and a line for another program does not stop netagg:
//!
//! - The file is in UTF-8, or in UTF-16 with a byte order mark.
//! - These are ignored: byte order marks, CRLF, blank lines, lines that start with `#`, `export` before a name, and white
//!   space around a line, a name and a value.
//! - A value ends at the end of its line, or before white space that is followed by `#`.
//! - A value in `'…'` or `"…"` is everything between the quotes, also white space, `#`, and other quotes.
//! - No character has a special meaning: `$`, `\`, and backquotes stand for themselves.
//! - If several lines have the same name, the last line counts. A line of another form is left out. A value that is not in
//!   UTF-8 is rejected where a program reads it.

use std::borrow::Cow;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// The lines of a file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct EnvFile {
    /// Names and values, in order.
    pub(crate) values: Vec<(String, String)>,
    /// The numbers and names of lines whose value is not in UTF-8.
    pub(crate) unreadable: Vec<(usize, String)>,
    /// The numbers and first words of lines of another form. The rest of such a line may be a secret.
    pub(crate) left_out: Vec<(usize, String)>,
}

impl EnvFile {
    /// Reads all lines. No line is an error.
    pub(crate) fn parse(bytes: &[u8]) -> Self {
        let bytes = in_utf8(bytes);
        let mut file = Self::default();
        for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
            let text = String::from_utf8_lossy(line);
            // A file that is a concatenation of other files may have a byte order mark in any line.
            let text = text.trim_matches(|c: char| c.is_whitespace() || c == BYTE_ORDER_MARK);
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let text = text.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t'])).unwrap_or(text).trim();
            let assignment = text.split_once('=').map(|(name, value)| (name.trim(), value));
            match assignment.filter(|(name, _)| is_name(name)) {
                // The lossy conversion has replaced bytes, so the value would not be as written.
                Some((name, _)) if std::str::from_utf8(line).is_err() => {
                    file.unreadable.push((index + 1, name.to_owned()));
                }
                Some((name, value)) => file.values.push((name.to_owned(), read_value(value))),
                None => file.left_out.push((index + 1, first_word(text))),
            }
        }
        file
    }
}

/// Converts UTF-16 to UTF-8. Windows editors may write UTF-16, with a byte order mark.
fn in_utf8(bytes: &[u8]) -> Cow<'_, [u8]> {
    let unit: fn([u8; 2]) -> u16 = match bytes {
        [0xff, 0xfe, ..] => u16::from_le_bytes,
        [0xfe, 0xff, ..] => u16::from_be_bytes,
        _ => return bytes.into(),
    };
    let units: Vec<_> = bytes.as_chunks().0.iter().map(|pair| unit(*pair)).collect();
    String::from_utf16_lossy(&units).into_bytes().into()
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|c: char| c.is_ascii_digit()) && !text.is_empty() && text.chars().all(is_part_of_name)
}

fn is_part_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn first_word(text: &str) -> String {
    text.chars().take_while(|c| is_part_of_name(*c)).collect()
}

/// The value after the `=`.
fn read_value(text: &str) -> String {
    let trimmed = text.trim();
    for quote in ['"', '\''] {
        let Some(quoted) = trimmed.strip_prefix(quote) else { continue };
        let end = quoted.match_indices(quote).find(|(at, _)| {
            let rest = &quoted[at + 1..];
            rest.is_empty() || (rest.starts_with([' ', '\t']) && rest.trim_start().starts_with('#'))
        });
        if let Some((end, _)) = end {
            return quoted[..end].to_owned();
        }
    }
    let is_comment = |(at, _): &(usize, &str)| text[..*at].ends_with([' ', '\t']);
    let end = text.match_indices('#').find(is_comment).map_or(text.len(), |(at, _)| at);
    text[..end].trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn value(line: &str) -> Option<String> {
        EnvFile::parse(line.as_bytes()).values.pop().map(|(_, value)| value)
    }

    #[test]
    fn values_are_as_written() {
        for (line, expected) in [
            ("A=pa$word", "pa$word"),
            ("A=${HOME}$$`x`\\n\\", "${HOME}$$`x`\\n\\"),
            ("A='pa$word'", "pa$word"),
            (r#"A="pa$word\n""#, r"pa$word\n"),
            (r#"A="a"b""#, r#"a"b"#),
            (r#"A="a" # why"#, "a"),
            (r#"A="a # b""#, "a # b"),
            ("A='a # b' # c", "a # b"),
            (r#"A="open"#, r#""open"#),
            ("A='mixed\"", "'mixed\""),
            ("A=it's", "it's"),
            ("A=a#b", "a#b"),
            ("A=a b # why", "a b"),
            ("A= # why", ""),
            ("A=#b", "#b"),
            ("A=", ""),
            ("A=\"\"", ""),
            ("A==b=", "=b="),
            ("  export\tA = b ", "b"),
            ("A=b\r\n", "b"),
            ("\u{feff}A=b", "b"),
            ("A=a\n\u{feff}A=b", "b"),
            ("A=a\nA=b", "b"),
            ("A=' b '", " b "),
        ] {
            assert_eq!(value(line).as_deref(), Some(expected), "{line:?}");
        }
    }

    #[test]
    fn a_line_of_another_form_is_left_out_without_its_secret() {
        let text = "A=1\n\n# B=2\nif true; then\nPOSTGRES_PASSWORD: s3cret\nmy-name=x\n1A=x\n=x\nexport\nC=3\n";
        let file = EnvFile::parse(text.as_bytes());
        let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(file.values, [owned("A", "1"), owned("C", "3")]);
        let words: Vec<_> = file.left_out.iter().map(|(line, word)| (*line, word.as_str())).collect();
        assert_eq!(words, [(4, "if"), (5, "POSTGRES_PASSWORD"), (6, "my"), (7, "1A"), (8, ""), (9, "export")]);
        let utf_16 = "\u{feff}A=pä$\r\nB=1\r\n".encode_utf16();
        for bytes in [u16::to_le_bytes as fn(u16) -> [u8; 2], u16::to_be_bytes] {
            let bytes: Vec<u8> = utf_16.clone().flat_map(bytes).collect();
            assert_eq!(EnvFile::parse(&bytes).values, [owned("A", "pä$"), owned("B", "1")]);
        }
        let file = EnvFile::parse(b"A=\xff\nB=1\n\xff");
        assert_eq!(file.values, [owned("B", "1")], "a value that is not in UTF-8 is left out");
        assert_eq!((file.unreadable, file.left_out), (vec![(1, "A".to_owned())], vec![(3, String::new())]));
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_parsed(bytes: Vec<u8>) {
            let file = EnvFile::parse(&bytes);
            prop_assert!(file.values.iter().all(|(name, _)| is_name(name)));
        }

        #[test]
        fn the_text_between_quotes_is_the_value(text in "[^\r\n'\0]*", end in "( *| +#.{0,9})(\r?\n)?") {
            prop_assert_eq!(value(&format!("A='{text}'{}", end.replace('\'', ""))), Some(text));
        }

        #[test]
        fn a_value_without_white_space_at_its_ends_and_comments_needs_no_quotes(text in "[!-~&&[^#'\"]]([ -~&&[^#]]*[!-~&&[^#]])?") {
            prop_assert_eq!(value(&format!("A={text}")), Some(text));
        }
    }
}
