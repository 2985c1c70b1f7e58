//! Any bytes as HTTP/1 requests: heads, bodies, and heads again.

use megaphone_proto::http1::{
    BodyDecoder, BodyFraming, BodyPiece, FORMATTED_MAX, Head, HttpReader, Item, Step, parse_head,
    reread_head,
};
use megaphone_proto::limits::{HTTP_CHUNK_LINE_MAX, HTTP_HEAD_MAX, HTTP_TRAILERS_MAX};

/// `data`: the mode, the sizes of three pieces, and what a client sends. However it is cut, it
/// says the same, and never is more than a limit's worth of it waited for.
pub fn http_heads(data: &[u8]) {
    let Some((&[mode, sizes @ ..], bytes)) = super::split::<4>(data) else {
        return;
    };
    let headers_only = mode & 1 == 1;
    let whole = read(headers_only, [bytes].into_iter());
    assert_eq!(whole, read(headers_only, super::pieces(bytes, &sizes)));
    assert_eq!(whole, read(headers_only, bytes.chunks(1)));
    if !headers_only {
        at_once(bytes, &whole);
    }
}

/// A whole head in one go is what the reader gives item by item, and so it is once more.
fn at_once(bytes: &[u8], whole: &[String]) {
    let mut items = Vec::new();
    let head = parse_head(bytes, |item| items.push(owned(&item)));
    match head {
        Head::More => assert!(items.is_empty()),
        Head::Whole { .. } | Head::Error(_) => assert!(whole.starts_with(&items)),
    }
    let mut again = Vec::new();
    reread_head(bytes, |item| again.push(owned(&item)));
    if let Head::Whole { consumed, .. } = head {
        again.clear();
        reread_head(&bytes[..consumed], |item| again.push(owned(&item)));
        assert_eq!(again, items[..items.len() - 1]);
    }
}

/// A client's requests as a server reads them.
enum Stage {
    Head,
    Body(BodyDecoder),
    Over,
}

fn read<'a>(headers_only: bool, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let mut reader = HttpReader::new(headers_only);
    let (mut stage, mut held, mut told) = (Stage::Head, Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut left = &held[..];
        while step(&mut reader, &mut stage, &mut left, &mut told) {}
        let waiting = left.len();
        held.drain(..held.len() - waiting);
        let most = HTTP_HEAD_MAX
            .max(HTTP_TRAILERS_MAX)
            .max(HTTP_CHUNK_LINE_MAX)
            + 2;
        assert!(waiting <= most, "{waiting} bytes are waited with");
    }
    told
}

/// Takes the next thing out of `left`; `false` when more bytes are needed.
fn step(
    reader: &mut HttpReader,
    stage: &mut Stage,
    left: &mut &[u8],
    told: &mut Vec<String>,
) -> bool {
    match stage {
        Stage::Head => {
            let Step::Item { item, consumed } = reader.next(left) else {
                return false;
            };
            told.push(owned(&item));
            *left = &left[consumed..];
            match item {
                Item::Eoh => *stage = body(reader.body()),
                Item::Error { .. } => *stage = Stage::Over,
                Item::Request { .. } | Item::Header { .. } => {}
            }
            true
        }
        Stage::Body(decoder) => match decoder.next(left) {
            Ok(None) => false,
            Ok(Some(BodyPiece::Data(data))) => {
                // A body's pieces are cut as the input was.
                let text = data.escape_ascii().to_string();
                match told.last_mut() {
                    Some(last) if last.starts_with("body ") => last.push_str(&text),
                    _ => told.push(format!("body {text}")),
                }
                true
            }
            Ok(Some(BodyPiece::End)) => {
                told.push("end".into());
                *stage = Stage::Head;
                true
            }
            Err(why) => {
                told.push(format!("{why:?}"));
                *stage = Stage::Over;
                true
            }
        },
        Stage::Over => {
            *left = &[];
            false
        }
    }
}

fn body(framing: BodyFraming) -> Stage {
    Stage::Body(BodyDecoder::new(framing))
}

/// An item without what it borrows.
fn owned(item: &Item<'_>) -> String {
    match item {
        Item::Header { name, value } => {
            let mut scratch = [0; FORMATTED_MAX];
            let field = name.formatted(&mut scratch).escape_ascii();
            let raw = name.raw().escape_ascii();
            format!("{} {field} ({raw}): {}", name.bit(), value.escape_ascii())
        }
        Item::Error { line, why } => format!("{why:?} {}", line.escape_ascii()),
        other => format!("{other:?}"),
    }
}
