//! Any bytes as a client's requests, gathered as the NIF does it.

use megaphone_proto::buffer::Buffer;
use megaphone_proto::http1::{Collector, Progress, first_language, host, pairs, segments};
use megaphone_proto::limits::{HTTP_CHUNK_LINE_MAX, HTTP_HEAD_MAX, HTTP_TRAILERS_MAX};

/// Bytes of a body that is taken.
const BODY_MAX: u64 = 300;

/// `data`: the sizes of three pieces, and what a client sends. However it is cut, the requests are
/// the same, and no more is held than limits say.
pub fn http_requests(data: &[u8]) {
    let Some((sizes, bytes)) = super::split::<3>(data) else {
        return;
    };
    let whole = read([bytes].into_iter());
    assert_eq!(whole, read(super::pieces(bytes, sizes)));
    assert_eq!(whole, read(bytes.chunks(1)));
    values(bytes);
}

/// Requests, each with its head and its body, and why there are no more.
fn read<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let (mut buffer, mut collector) = (Buffer::new(), Collector::default());
    let (mut told, mut skip) = (Vec::new(), 0);
    for piece in pieces {
        buffer.push(piece);
        loop {
            let skipped = skip.min(buffer.len() as u64);
            buffer.consume(skipped as usize);
            skip -= skipped;
            if skip > 0 || buffer.is_empty() {
                break;
            }
            match collector.collect(&mut buffer, BODY_MAX) {
                Ok(Progress::Head | Progress::Body) => break,
                Ok(Progress::Whole) => {}
                Ok(Progress::Stream(length)) => skip = length,
                Err(refusal) => {
                    assert!(refusal.answer().starts_with("HTTP/1.1 "));
                    told.push(format!("{refusal:?}"));
                    return told;
                }
            }
            let (head, body) = collector.parts(&buffer);
            assert!(!head.is_empty() && body.len() as u64 <= BODY_MAX);
            told.push(format!("{}|{}", head.escape_ascii(), body.escape_ascii()));
            buffer.consume(collector.taken());
            collector = Collector::default();
        }
        let most = HTTP_HEAD_MAX + 2 + BODY_MAX as usize;
        let line = HTTP_CHUNK_LINE_MAX.max(HTTP_TRAILERS_MAX);
        assert!(buffer.len() <= most.max(line), "{} are held", buffer.len());
    }
    told
}

/// Whatever stands in a head.
fn values(bytes: &[u8]) {
    let mut scratch = Vec::new();
    let _ = segments(bytes, &mut scratch, |part| {
        assert!(!part.is_empty() && !part.contains(&b'/') && part.len() <= bytes.len());
    });
    let _ = pairs(bytes, &mut scratch, |key, value| {
        assert!(key.unwrap_or_default().len() + value.len() <= bytes.len());
    });
    let _ = host(bytes);
    assert!(!first_language(bytes).is_empty());
}
