//! Bodies.

use super::super::{BodyDecoder, BodyError, BodyStep, Limits};
use super::*;

/// Decodes `input`, `step` bytes more per read, and says what came out: data in quotes, trailers in brackets, the rest of the input
/// after `then`.
pub(super) fn verdict(framing: Framing, input: &[u8], limits: Limits, step: usize) -> String {
    let mut decoder = BodyDecoder::new(framing, limits);
    let mut data = Vec::new();
    let (mut at, mut end) = (0, 0);
    loop {
        match decoder.decode(&input[at..end]) {
            Ok(BodyStep::Data { skip, len }) => {
                data.extend_from_slice(&input[at + skip..at + skip + len]);
                at += skip + len;
            }
            Ok(BodyStep::Skip { len }) => at += len,
            Ok(BodyStep::NeedMore) if end == input.len() => {
                return match decoder.finish_eof() {
                    Ok(()) => format!("{:?} at eof", text(&data)),
                    Err(error) => format!("{:?} {error:?}", text(&data)),
                };
            }
            Ok(BodyStep::NeedMore) => end = (end + step).min(input.len()),
            Ok(BodyStep::End) => break,
            Err(error) => return format!("{:?} {error:?}", text(&data)),
        }
    }
    assert!(decoder.is_done());
    let mut out = format!("{:?}", text(&data));
    for (name, value) in decoder.trailers().iter() {
        out.push_str(&format!(" [{}: {}]", text(name), text(value)));
    }
    if at < input.len() {
        out.push_str(&format!(" then {}", text(&input[at..])));
    }
    out
}

fn check(framing: Framing, table: &[(&str, &str)]) {
    for (input, expected) in table {
        let input = bytes(input);
        for step in [input.len().max(1), 3, 2, 1] {
            let mut found = verdict(framing, &input, LIMITS, step);
            // What follows the body is seen only as far as it was read.
            if step < input.len()
                && let Some(at) = found.find(" then ")
            {
                found.truncate(at);
                assert!(expected.starts_with(&found), "{}", text(&input));
                continue;
            }
            assert_eq!(found, *expected, "{} by {step}", text(&input));
        }
    }
}

#[test]
fn a_length_is_counted_out() {
    check(Framing::None, &[("next", "\"\" then next")]);
    check(Framing::Length(0), &[("next", "\"\" then next"), ("", "\"\"")]);
    check(
        Framing::Length(3),
        &[("abc", "\"abc\""), ("abcd", "\"abc\" then d"), ("ab", "\"ab\" Truncated"), ("", "\"\" Truncated")],
    );
}

#[test]
fn the_end_of_the_connection_ends_only_what_it_may() {
    check(Framing::UntilClose, &[("abc", "\"abc\" at eof"), ("", "\"\" at eof")]);
    check(
        Framing::Chunked,
        &[
            ("", "\"\" Truncated"),
            ("3¶ab", "\"ab\" Truncated"),
            ("3¶abc¶", "\"abc\" Truncated"),
            ("3¶abc¶0¶", "\"abc\" Truncated"),
            ("3¶abc¶0¶X: y¶", "\"abc\" Truncated"),
        ],
    );
}

#[test]
fn chunks_are_joined() {
    check(
        Framing::Chunked,
        &[
            ("0¶¶", "\"\""),
            ("0¶¶next", "\"\" then next"),
            ("3¶abc¶2¶de¶0¶¶", "\"abcde\""),
            ("A¶0123456789¶0¶¶", "\"0123456789\""),
            ("a¶0123456789¶000¶¶", "\"0123456789\""),
            ("0000000000000003¶abc¶0¶¶", "\"abc\""),
            ("2¶¶¶0¶¶", "\"¶\""),
        ],
    );
}

#[test]
fn extensions_are_dropped() {
    check(
        Framing::Chunked,
        &[
            ("3;a¶abc¶0;b=c¶¶", "\"abc\""),
            ("3;a=\"b;c\";d¶abc¶0¶¶", "\"abc\""),
            ("3 ;a¶abc¶0\t;¶¶", "\"abc\""),
            ("3;a\nabc¶0¶¶", "\"\" Extension"),
            ("3;\0¶abc¶0¶¶", "\"\" Extension"),
            ("3;a\rb¶abc¶0¶¶", "\"\" ChunkSize"),
        ],
    );
}

#[test]
fn trailers_come_after_the_last_chunk() {
    check(
        Framing::Chunked,
        &[
            ("0¶A: b¶¶", "\"\" [A: b]"),
            ("1¶x¶0¶A: b¶a:\tc ¶¶next", "\"x\" [A: b] [a: c] then next"),
            ("0¶A : b¶¶", "\"\" Trailers(SpaceBeforeColon)"),
            ("0¶A: b\n\n", "\"\" Trailers(BareLineFeed)"),
            ("0¶\n", "\"\" Trailers(BareLineFeed)"),
            ("0¶ A: b¶¶", "\"\" Trailers(ObsFold)"),
            ("0¶Content-Length: 5¶¶", "\"\" ForbiddenTrailer"),
            ("0¶transfer-encoding: chunked¶¶", "\"\" ForbiddenTrailer"),
            ("0¶Host: b¶¶", "\"\" ForbiddenTrailer"),
        ],
    );
}

#[test]
fn refuses_malformed_chunks() {
    check(
        Framing::Chunked,
        &[
            ("¶", "\"\" ChunkSize"),
            ("x¶", "\"\" ChunkSize"),
            ("-1¶", "\"\" ChunkSize"),
            ("+1¶", "\"\" ChunkSize"),
            ("0x1¶", "\"\" ChunkSize"),
            (" 1¶", "\"\" ChunkSize"),
            ("1 ¶a¶", "\"\" ChunkSize"),
            ("1 2¶a¶", "\"\" ChunkSize"),
            ("1\na¶", "\"\" ChunkSize"),
            ("1\ra¶", "\"\" ChunkSize"),
            (";a¶", "\"\" ChunkSize"),
            ("8000000000000000¶", "\"\" ChunkSizeOverflow"),
            ("ffffffffffffffff0¶", "\"\" ChunkSizeOverflow"),
            ("00000000000000001¶a¶", "\"\" ChunkSizeOverflow"),
            ("1¶ab¶0¶¶", "\"a\" ChunkEnd"),
            ("2¶a¶0¶¶", "\"a\\r\" ChunkEnd"),
            ("1¶a\n0¶¶", "\"a\" ChunkEnd"),
            ("1¶a\r0¶¶", "\"a\" ChunkEnd"),
        ],
    );
}

#[test]
fn extensions_and_trailers_are_bounded() {
    let mut decoder = BodyDecoder::new(Framing::Chunked, LIMITS);
    let chunk = format!("1;{}\r\na\r\n", "x".repeat(1000));
    let error = (0..100).find_map(|_| {
        let mut at = 0;
        while at < chunk.len() {
            match decoder.decode(&chunk.as_bytes()[at..]) {
                Ok(BodyStep::Data { skip, len }) => at += skip + len,
                Ok(BodyStep::Skip { len }) => at += len,
                Ok(step) => panic!("{step:?}"),
                Err(error) => return Some(error),
            }
        }
        None
    });
    assert_eq!(error, Some(BodyError::ExtensionsTooLong { limit: 16 * 1024 }));

    let limits = Limits { max_head_bytes: 16, max_fields: 1, accept_http10: false };
    let table = [
        ("0¶A: b¶¶", "\"\" [A: b]"),
        ("0¶A: b¶C: d¶¶", "\"\" Trailers(TooManyFields { limit: 1 })"),
        ("0¶A: bbbbbbbbbbbbbbbbbbbb", "\"\" Trailers(HeadTooLarge { limit: 16 })"),
    ];
    for (input, expected) in table {
        let input = bytes(input);
        assert_eq!(verdict(Framing::Chunked, &input, limits, input.len()), expected);
        assert_eq!(verdict(Framing::Chunked, &input, limits, 1), expected);
    }
}

#[test]
fn data_is_pointed_at_not_copied() {
    let mut decoder = BodyDecoder::new(Framing::Chunked, LIMITS);
    let input = b"5\r\nhello\r\n5\r\nworld";
    assert_eq!(decoder.decode(input), Ok(BodyStep::Data { skip: 3, len: 5 }));
    assert_eq!(decoder.decode(&input[8..]), Ok(BodyStep::Data { skip: 5, len: 5 }));
    assert_eq!(decoder.decode(&[]), Ok(BodyStep::NeedMore));
}
