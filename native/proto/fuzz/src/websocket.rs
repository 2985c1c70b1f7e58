//! Any bytes as what a WebSocket client sends.

use megaphone_proto::ws::{Event, Fault, Reader};

/// Bytes that may wait for more: the longest head of a control frame with its longest payload.
const WAITING_MAX: usize = 131;

/// `data`: how long a message may be, the sizes of three pieces, and what a client sends. However
/// it is cut, it says the same; never is much of it waited for, nor more held than a message may
/// have; and what is whole is what a plain reading of RFC 6455 says.
pub fn websocket(data: &[u8]) {
    let Some((&[max, sizes @ ..], bytes)) = super::split::<4>(data) else {
        return;
    };
    let max = 8 * usize::from(max);
    let whole = read(max, [bytes].into_iter());
    assert_eq!(whole, read(max, super::pieces(bytes, &sizes)));
    assert_eq!(whole, read(max, bytes.chunks(1)));
    plainly(bytes, &whole);
}

fn read<'a>(max: usize, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<String> {
    let (mut reader, mut held, mut told) = (Reader::default(), Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut left = &held[..];
        loop {
            match step(&mut reader, &mut left, max) {
                Ok(None) => break,
                Ok(Some(event)) => told.push(event),
                Err(fault) => {
                    told.push(format!("fault {} {fault}", fault.code()));
                    return told;
                }
            }
        }
        let waiting = left.len();
        assert!(waiting <= WAITING_MAX, "{waiting} bytes are waited with");
        assert!(reader.held() <= 2 * max + 256, "{} held", reader.held());
        held.drain(..held.len() - waiting);
    }
    told
}

fn step(reader: &mut Reader, left: &mut &[u8], max: usize) -> Result<Option<String>, Fault> {
    Ok(match reader.next(left, max)? {
        None => None,
        Some(Event::Message(kind, payload)) => {
            let mut bytes = vec![0; payload.len()];
            payload.copy_to(&mut bytes)?;
            assert!(bytes.len() <= max);
            Some(format!("{kind:?} {}", bytes.escape_ascii()))
        }
        Some(Event::Fragment) => Some("part".into()),
        Some(Event::Ping(payload)) => Some(format!("ping {}", payload.as_slice().escape_ascii())),
        Some(Event::Pong) => Some("pong".into()),
        Some(Event::Close(closing)) => Some(format!("close {:?}", closing.code)),
    })
}

/// What is told of whole frames must be what they say, up to the first fault.
fn plainly(mut bytes: &[u8], told: &[String]) {
    let (mut told, mut message) = (told.iter(), None::<(u8, Vec<u8>)>);
    while let Some((first, payload, rest)) = frame(bytes) {
        bytes = rest;
        let Some(said) = told.next() else {
            panic!("nothing is told of a whole frame");
        };
        if said.starts_with("fault ") {
            return;
        }
        let text = match first & 0x0f {
            8 if payload.is_empty() => "close None".into(),
            8 => format!(
                "close Some({})",
                u16::from_be_bytes([payload[0], payload[1]])
            ),
            9 => format!("ping {}", payload.escape_ascii()),
            10 => "pong".into(),
            opcode => {
                let whole = message.get_or_insert((opcode, Vec::new()));
                whole.1.extend(payload);
                let kind = if whole.0 == 1 { "Text" } else { "Binary" };
                let text = format!("{kind} {}", whole.1.escape_ascii());
                match first >= 0x80 {
                    true => {
                        message = None;
                        text
                    }
                    false => "part".into(),
                }
            }
        };
        assert_eq!(*said, text);
    }
    assert!(told.all(|said| said.starts_with("fault ")));
}

/// The first frame, if it is there and masked.
fn frame(bytes: &[u8]) -> Option<(u8, Vec<u8>, &[u8])> {
    let (&[first, second], rest) = bytes.split_first_chunk()?;
    let (length, rest) = match second & 0x7f {
        126 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u64::from(u16::from_be_bytes(*length)), rest)
        }
        127 => {
            let (length, rest) = rest.split_first_chunk()?;
            (u64::from_be_bytes(*length), rest)
        }
        short => (u64::from(short), rest),
    };
    let (key, rest) = match second >> 7 {
        1 => rest.split_first_chunk::<4>()?,
        _ => (&[0; 4], rest),
    };
    let (masked, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let masked = masked.iter().zip(key.iter().cycle());
    Some((first, masked.map(|(byte, key)| byte ^ key).collect(), rest))
}
