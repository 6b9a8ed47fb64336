use super::*;
use std::io::{Cursor, Write};

fn lines(bytes: Vec<u8>) -> (Vec<String>, Option<String>) {
    let mut lines = Lines::new(Box::new(Cursor::new(bytes))).expect("a start");
    let mut read = Vec::new();
    loop {
        match lines.next() {
            Ok(None) => return (read, None),
            Ok(Some((number, line))) => {
                assert_eq!(number, read.len() as u64 + 1);
                read.push(match line {
                    Line::Text(text) => String::from_utf8(text).expect("UTF-8"),
                    Line::TooLong => "too long".to_owned(),
                });
            }
            Err(error) => return (read, Some(error.to_string())),
        }
    }
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(text).expect("written");
    encoder.finish().expect("finished")
}

fn zstd(text: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
    encoder.include_checksum(true).expect("a checksum");
    encoder.write_all(text).expect("written");
    encoder.finish().expect("finished")
}

#[test]
fn line_ends_and_byte_order_marks_are_removed() {
    let (read, error) = lines("\u{feff}one\r\n\r\n two\r \n\u{feff}next\nla\u{feff}st".into());
    assert_eq!((read, error), (["one", "", " two\r ", "next", "la\u{feff}st"].map(str::to_owned).into(), None));
    assert_eq!(lines(Vec::new()), (vec![], None));
}

#[test]
fn a_line_that_is_too_long_is_skipped() {
    let longest = "x".repeat(MAX_LINE_BYTES);
    for (end, len) in [("\n", 0), ("\r\n", 0), ("\n", 1), ("\r\n", 1), ("\n", 2), ("\n", 3 * MAX_LINE_BYTES)] {
        let (read, error) = lines(format!("{longest}{}{end}next", "x".repeat(len)).into());
        let first = if len == 0 { &longest } else { "too long" };
        assert!(read == [first, "next"] && error.is_none(), "{len} more bytes, {end:?}: {error:?}");
    }
    assert_eq!(lines(format!("{longest}xxx").into()).0, ["too long"]);
}

fn zeros(count: usize) -> Vec<u8> {
    vec![0; count]
}

#[test]
fn compressed_lines_are_read_also_in_several_parts() {
    let (first, second) = (&b"one\ntw"[..], &b"o\nthree\n"[..]);
    let expected = (["one", "two", "three"].map(str::to_owned).to_vec(), None);
    let empty_frame = [0x50, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, 9, 9].to_vec();
    for compressed in [
        [first, second].concat(),
        gzip(&[first, second].concat()),
        [gzip(first), gzip(second)].concat(),
        zstd(&[first, second].concat()),
        [zstd(first), zstd(second)].concat(),
        [empty_frame.clone(), zstd(first), empty_frame.clone(), zstd(second), empty_frame].concat(),
        [gzip(first), gzip(b""), zstd(b""), zstd(second)].concat(),
        // Padding after the last part, after each part, and more padding than fits into the buffer.
        [gzip(&[first, second].concat()), zeros(1)].concat(),
        [gzip(first), zeros(512), gzip(second), zeros(3 << 20)].concat(),
        [zstd(first), zeros(3), zstd(second), zeros(511)].concat(),
        [&[first, second].concat()[..], &zeros(3 << 20)].concat(),
        [&zeros(300 << 10)[..], first, second].concat(),
    ] {
        assert_eq!(lines(compressed), expected);
    }
    for nothing in [vec![], zeros(1), zeros(1 << 20), gzip(b""), zstd(b""), [gzip(b""), zeros(9)].concat()] {
        assert_eq!(lines(nothing), (vec![], None));
    }
    assert_eq!(lines([&b"one\nlast"[..], &zeros(9)].concat()), (vec!["one".to_owned(), "last".to_owned()], None));
}

#[test]
fn members_that_arrive_byte_by_byte_are_read() {
    struct Slow(Cursor<Vec<u8>>);
    impl Read for Slow {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            let len = into.len().min(1);
            self.0.read(&mut into[..len])
        }
    }
    let compressed = (0..100).flat_map(|number| {
        let line = format!("{number}\n");
        if number % 2 == 0 { gzip(line.as_bytes()) } else { [zstd(line.as_bytes()), zeros(2)].concat() }
    });
    let mut lines = Lines::new(Box::new(Slow(Cursor::new(compressed.collect())))).expect("a start");
    for number in 0..100 {
        let line = lines.next().expect("readable").expect("a line");
        assert!(matches!(line, (_, Line::Text(text)) if text == format!("{number}").as_bytes()));
    }
    assert!(matches!(lines.next(), Ok(None)) && lines.trailing() == 0);
}

#[test]
fn bytes_after_compressed_data_are_counted() {
    for (trailing, count) in [("garbage\n", 8), ("\0\0x", 1), ("\u{1f}", 1)] {
        for compressed in [gzip(b"one\n"), zstd(b"one\n")] {
            let bytes = [&compressed, trailing.as_bytes()].concat();
            let mut lines = Lines::new(Box::new(Cursor::new(bytes))).expect("a start");
            assert!(matches!(lines.next(), Ok(Some((1, Line::Text(_))))));
            assert!(matches!(lines.next(), Ok(None)), "{trailing:?}");
            assert_eq!(lines.trailing(), count, "{trailing:?}");
        }
    }
}

#[test]
fn incomplete_or_damaged_compressed_data_give_a_clear_error() {
    let text: Vec<u8> = (0..60_000).flat_map(|number: u32| format!("{}\n", number * number).into_bytes()).collect();
    for compressed in [gzip(&text), zstd(&text)] {
        let half = compressed.len() / 2;
        for len in [half, compressed.len() - 1] {
            let (read, error) = lines(compressed[..len].to_vec());
            assert!(error.as_ref().is_some_and(|error| error.contains("end before they are complete")), "{error:?}");
            assert!((1..=60_000).contains(&read.len()), "{} lines before the end", read.len());
        }
        let mut damaged = compressed.clone();
        damaged[half] ^= 0xff;
        let error = lines(damaged).1.expect("an error");
        assert!(error.contains("damaged") || error.contains("checksum"), "{error}");
    }
    // In gzip, the checksum is before the length of the data. In zstd, the checksum is at the end.
    for (mut compressed, from_end) in [(gzip(&text), 8), (zstd(&text), 1)] {
        let at = compressed.len() - from_end;
        compressed[at] ^= 1;
        let error = lines(compressed).1.expect("an error");
        assert!(error.contains("do not match their checksum"), "{error}");
    }
    let beginning = |bytes: Vec<u8>| Lines::new(Box::new(Cursor::new(bytes))).err().expect("no line");
    for bytes in [vec![0x1f, 0x8b], gzip(b"one")[..12].to_vec(), zstd(b"one")[..6].to_vec()] {
        let NdjsonError::Unreadable { error, .. } = beginning(bytes) else { panic!("the format is known") };
        let reason = error.to_string();
        assert!(reason.contains("end before they are complete"), "{reason}");
    }
}

#[test]
fn zstd_windows_are_accepted_up_to_the_largest_window_of_the_tool() {
    for log in [10, 27, 30, 31] {
        let mut encoder = zstd::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.window_log(log).expect("a window");
        encoder.long_distance_matching(log > 24).expect("matching");
        // Two writes: the encoder then does not know the size, and keeps the window.
        encoder.write_all(b"one\n").expect("written");
        encoder.flush().expect("flushed");
        encoder.write_all(b"two\n").expect("written");
        let compressed = encoder.finish().expect("finished");
        assert_eq!(lines(compressed), (vec!["one".to_owned(), "two".to_owned()], None), "{log}");
    }
    // A header that asks for 3.75 TB.
    let reason = Lines::new(Box::new(Cursor::new([0x28, 0xb5, 0x2f, 0xfd, 0, 0xff, 1, 0, 0].to_vec()))).err();
    let Some(NdjsonError::Unreadable { error, .. }) = reason else { panic!("{reason:?}") };
    let reason = error.to_string();
    assert!(reason.contains("a window of more than 2048 MiB"), "{reason}");
}

#[test]
fn other_formats_are_named_with_the_command_that_converts_them() {
    let describe = |bytes: &[u8]| match Lines::new(Box::new(Cursor::new(bytes.to_vec()))) {
        Err(NdjsonError::ForeignFormat(input)) => match input.conversion(true) {
            Some(command) => format!("{input}. Convert it: {command} | netagg import -"),
            None => input.to_string(),
        },
        Ok(_) => "lines".to_owned(),
        Err(error) => format!("{error:?}"),
    };
    let event = r#"{"event_id":"1","source_id":"s"}"#;
    let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<_>>();
    let utf_16_be = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<_>>();
    let utf_32 = |text: &str| text.chars().flat_map(|c| (c as u32).to_le_bytes()).collect::<Vec<_>>();
    let utf_32_be = |text: &str| text.chars().flat_map(|c| (c as u32).to_be_bytes()).collect::<Vec<_>>();
    let mut tar = vec![0; 1024];
    tar[..6].copy_from_slice(b"events");
    tar[257..262].copy_from_slice(b"ustar");
    for (bytes, name, command) in [
        (b"\xfd7zXZ\0\0\x04".to_vec(), "compressed with xz", "Convert it: xz -dc <FILE | netagg import -"),
        (b"BZh91AY&SY".to_vec(), "compressed with bzip2", "bzip2 -dc <FILE | netagg"),
        (b"PK\x03\x04\x14\0".to_vec(), "a zip archive", "unzip -p FILE | netagg"),
        (b"7z\xbc\xaf\x27\x1c\0\x04".to_vec(), "7z", "7z x -so FILE | netagg"),
        (b"\x04\x22\x4d\x18\x64\x40".to_vec(), "lz4", "lz4 -dc <FILE"),
        (b"\x78\x9c\xab\x56".to_vec(), "zlib", "pigz -dc <FILE"),
        (b"PAR1\x15\x04".to_vec(), "Parquet", "duckdb"),
        (b"Obj\x01\x04".to_vec(), "Avro", "avro-tools tojson FILE | netagg"),
        (tar.clone(), "a tar archive", "tar -xOf - <FILE | netagg"),
        (
            gzip(&tar),
            "the gzip data contain another format: it is a tar archive",
            "gzip -dc FILE | tar -xOf - | netagg",
        ),
        (gzip(&gzip(b"one")), "compressed with gzip", "gzip -dc FILE | gzip -dc | netagg"),
        (zstd(&gzip(b"one")), "the zstd data contain", "zstd -dc FILE | gzip -dc | netagg"),
        (utf_16(&format!("\u{feff}{event}\n")), "UTF-16", "iconv -f UTF-16 -t UTF-8 <FILE | netagg"),
        (utf_16_be(&format!("\u{feff}{event}\n")), "UTF-16", "iconv -f UTF-16 -t UTF-8 <FILE"),
        (utf_16(event), "UTF-16", "iconv -f UTF-16LE -t UTF-8 <FILE"),
        (utf_16_be(event), "UTF-16", "iconv -f UTF-16BE -t UTF-8 <FILE"),
        (gzip(&utf_16(event)), "the gzip data contain", "gzip -dc FILE | iconv -f UTF-16LE"),
        (utf_32(&format!("\u{feff}{event}")), "UTF-32", "iconv -f UTF-32 -t"),
        (utf_32_be(&format!("\u{feff}{event}")), "UTF-32", "iconv -f UTF-32 -t"),
        (utf_32(event), "UTF-32", "iconv -f UTF-32LE"),
        (utf_32_be(event), "UTF-32", "iconv -f UTF-32BE"),
        (format!("[{event},{event}]").into_bytes(), "a JSON array", "jq -c '.[]' <FILE"),
        (format!("\u{feff} \r\n[\n  {event},\n  {event}\n]\n").into_bytes(), "a JSON array", "jq -c '.[]'"),
        (b"[]".to_vec(), "a JSON array", "jq -c '.[]'"),
        (format!("[{}", event.repeat(1_000)).into_bytes(), "a JSON array", "jq -c '.[]'"),
        (
            event.replace('{', "{\n  ").replace(',', ",\n  ").into_bytes(),
            "over several lines",
            "jq -c . <FILE | netagg import -",
        ),
        (event.replace(',', ",\n").into_bytes(), "over several lines", "jq -c ."),
        (format!("{event}{event}").into_bytes(), "several objects on a line", "jq -c ."),
        (format!("{event}\r{event}\r").into_bytes(), "several objects on a line", "jq -c ."),
        (format!("{event},\n{event}\n").into_bytes(), "a comma after each line", "sed 's/,[[:space:]]*$//' <FILE"),
        (format!("\u{1e}{event}\n").into_bytes(), "RFC 7464", r"tr -d '\036' <FILE"),
        (b"event_id,source_id\n1,s\n".to_vec(), "CSV", "mlr --icsv --ojsonl cat <FILE"),
        (b"<!DOCTYPE html>\n<html>".to_vec(), "HTML", "accepted: one JSON object per line"),
        (b"SQLite format 3\0\x10\0".to_vec(), "not text in UTF-8", "accepted: one JSON object per line"),
        (b"\x93\xffnonsense\n".to_vec(), "not text in UTF-8", "accepted: one JSON object per line"),
    ] {
        let description = describe(&bytes);
        let is_complete = description.contains(name) && description.contains(command);
        assert!(is_complete, "{name}, {command}: {description}");
    }
    // One invalid line does not make the input another format.
    for lines in [
        format!("{event}\n[{event}]\n"),
        format!("no JSON\n{event}\n"),
        format!("[2025-10-20] started\n{event}\n"),
        format!("{{\"event_id\":\n{event}\n"),
        "{".to_owned(),
        format!("{event} garbage\n"),
        format!("{{\"event_id\":\"{}\"}}", "x".repeat(9_000)),
        "x".repeat(9_000),
        "é".repeat(4_095),
        format!(" {}", "é".repeat(4_095)),
    ] {
        assert_eq!(describe(lines.as_bytes()), "lines", "{lines}");
    }
    let piped = match Lines::new(Box::new(Cursor::new(b"BZh".to_vec()))) {
        Err(NdjsonError::ForeignFormat(input)) => input.conversion(false),
        _ => None,
    };
    assert_eq!(piped.as_deref(), Some("… | bzip2 -dc"));
}

#[test]
fn a_line_is_returned_without_waiting_for_the_next_bytes() {
    struct Ends(Cursor<Vec<u8>>);
    impl Read for Ends {
        fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
            match self.0.read(into)? {
                0 => panic!("the reader waits for the rest of the input"),
                read => Ok(read),
            }
        }
    }
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"{}\n").expect("written");
    encoder.flush().expect("flushed");
    for bytes in [b"{}\n".to_vec(), encoder.get_ref().clone()] {
        let mut lines = Lines::new(Box::new(Ends(Cursor::new(bytes)))).expect("a start");
        assert!(matches!(lines.next(), Ok(Some((1, Line::Text(text)))) if text == b"{}"));
    }
}
