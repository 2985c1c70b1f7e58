//! Any bytes as a stream of frames.

use megaphone_proto::frame::{ConnectionId, Decoder, FrameError, Head, Piece, put_frame};
use megaphone_proto::limits::HEAD_LEN;

/// What a stream says: neighbouring content of one frame put together, and how it ended.
type Heard = (Vec<(ConnectionId, Vec<u8>, bool)>, Option<FrameError>);

/// `data`: how large a frame may be, the sizes of four pieces, and the stream that is cut into
/// them. However it is cut, it says the same; and what it says, said again, is the same stream.
pub fn frames(data: &[u8]) {
    let Some((&[max, sizes @ ..], stream)) = super::split::<5>(data) else {
        return;
    };
    let max = u32::from(max) * 16;
    let whole = hear(max, [stream].into_iter());
    assert_eq!(whole, hear(max, super::pieces(stream, &sizes)));
    assert_eq!(whole, hear(max, stream.chunks(1)));
    let mut again = Vec::new();
    for (id, content, _) in whole.0.iter().filter(|(_, _, whole)| *whole) {
        assert!(content.len() <= max as usize);
        put_frame(*id, content, &mut again);
    }
    assert!(stream.starts_with(&again));
    if let Some(head) = stream.first_chunk::<HEAD_LEN>()
        && let Ok(parsed) = Head::parse(head, u32::MAX)
    {
        assert_eq!(parsed.encode(), *head);
    }
}

fn hear<'a>(max: u32, pieces: impl Iterator<Item = &'a [u8]>) -> Heard {
    let mut decoder = Decoder::new(max);
    let mut frames: Vec<(ConnectionId, Vec<u8>, bool)> = Vec::new();
    let mut within = false;
    for mut piece in pieces {
        loop {
            match decoder.next(&mut piece) {
                Err(error) => {
                    assert_eq!(decoder.next(&mut piece), Err(error), "it stays");
                    return (frames, Some(error));
                }
                Ok(None) => break,
                Ok(Some(Piece::End { id })) => frames.push((id, Vec::new(), true)),
                Ok(Some(Piece::Content { id, bytes })) => {
                    assert!(!bytes.is_empty());
                    match frames.last_mut() {
                        Some((last, content, _)) if within => {
                            assert_eq!(*last, id);
                            content.extend_from_slice(bytes);
                        }
                        _ => frames.push((id, bytes.to_vec(), false)),
                    }
                    within = decoder.mid_frame();
                    if let Some(last) = frames.last_mut() {
                        last.2 = !within;
                    }
                }
            }
        }
        assert!(piece.is_empty());
    }
    (frames, None)
}
