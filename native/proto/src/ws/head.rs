//! The head of a frame (RFC 6455, section 5.2): bytes to meaning, and back.

use super::Fault;

/// Payload of a control frame, at most (section 5.5).
const CONTROL_MAX: u64 = 125;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opcode {
    /// More of a message.
    Continuation = 0,
    /// A message of text, or its beginning.
    Text = 1,
    /// A message of bytes, or its beginning.
    Binary = 2,
    /// The last frame.
    Close = 8,
    /// To be answered with a pong.
    Ping = 9,
    /// Such an answer, or a sign of life.
    Pong = 10,
}

impl Opcode {
    fn new(bits: u8) -> Result<Self, Fault> {
        Ok(match bits {
            0 => Opcode::Continuation,
            1 => Opcode::Text,
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            reserved => return Err(Fault::ReservedOpcode(reserved)),
        })
    }

    /// Close, ping or pong: they come between the fragments of a message.
    pub fn is_control(self) -> bool {
        self as u8 >= Opcode::Close as u8
    }
}

/// What stands before a client's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// The last frame of its message.
    pub last: bool,
    /// What it is.
    pub opcode: Opcode,
    /// Bytes of payload.
    pub payload: u64,
    /// What the payload is masked with.
    pub key: [u8; 4],
    /// Bytes of the head itself.
    pub size: usize,
}

impl Head {
    /// Reads the head of a client's frame; `None` when there is not all of it. Its first two bytes
    /// are judged as soon as they are there.
    ///
    /// A length may be written longer than it must be: some clients do, and it does no harm.
    ///
    /// # Errors
    /// Whatever the head alone shows to be wrong.
    #[inline]
    pub fn parse(bytes: &[u8]) -> Result<Option<Head>, Fault> {
        let [first, second, rest @ ..] = bytes else {
            return Ok(None);
        };
        if first & 0x70 != 0 {
            return Err(Fault::ReservedBits);
        }
        let opcode = Opcode::new(first & 0x0f)?;
        if second & 0x80 == 0 {
            return Err(Fault::Unmasked);
        }
        let last = first & 0x80 != 0;
        let short = u64::from(second & 0x7f);
        if opcode.is_control() && !last {
            return Err(Fault::ControlFragmented);
        }
        if opcode.is_control() && short > CONTROL_MAX {
            return Err(Fault::ControlTooLong);
        }
        let (payload, rest) = match short {
            126 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from(u16::from_be_bytes(*length)), rest),
                None => return Ok(None),
            },
            127 => match rest.split_first_chunk() {
                Some((length, rest)) => (u64::from_be_bytes(*length), rest),
                None => return Ok(None),
            },
            short => (short, rest),
        };
        if payload >> 63 != 0 {
            return Err(Fault::Length);
        }
        Ok(rest.split_first_chunk().map(|(key, rest)| Head {
            last,
            opcode,
            payload,
            key: *key,
            size: bytes.len() - rest.len(),
        }))
    }
}

/// The head of a server's frame with a whole message or control in it, and how many of the bytes
/// are used.
#[inline]
pub fn put_head(opcode: Opcode, payload: usize) -> ([u8; 10], usize) {
    let mut head = [0; 10];
    head[0] = 0x80 | opcode as u8;
    let size = match payload {
        0..126 => {
            head[1] = payload as u8;
            2
        }
        126..=0xffff => {
            head[1] = 126;
            head[2..4].copy_from_slice(&(payload as u16).to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..].copy_from_slice(&(payload as u64).to_be_bytes());
            10
        }
    };
    (head, size)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of section 5.7.
    #[test]
    fn golden_frames() {
        let hello = [0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f];
        let head = Head {
            last: true,
            opcode: Opcode::Text,
            payload: 5,
            key: [0x37, 0xfa, 0x21, 0x3d],
            size: 6,
        };
        assert_eq!(Head::parse(&hello), Ok(Some(head)));
        assert_eq!(put_head(Opcode::Text, 5).0[..2], [0x81, 0x05]);
        assert_eq!(put_head(Opcode::Pong, 5).0[..2], [0x8a, 0x05]);
        assert_eq!(put_head(Opcode::Binary, 256).0[..4], [0x82, 0x7e, 1, 0]);
        let (head, size) = put_head(Opcode::Binary, 65536);
        assert_eq!(head[..size], [0x82, 0x7f, 0, 0, 0, 0, 0, 1, 0, 0]);
    }

    #[test]
    fn a_length_and_its_other_side() {
        for payload in [0, 1, 125, 126, 127, 0xffff, 0x1_0000, 1 << 40] {
            let (head, size) = put_head(Opcode::Binary, payload);
            let mut bytes = head[..size].to_vec();
            bytes[1] |= 0x80;
            bytes.extend([1, 2, 3, 4]);
            for cut in 0..bytes.len() {
                assert_eq!(Head::parse(&bytes[..cut]), Ok(None));
            }
            let head = Head::parse(&bytes).unwrap().unwrap();
            assert_eq!((head.payload, head.size), (payload as u64, bytes.len()));
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_the_first_two_bytes() {
        for (bytes, fault) in [
            ([0xc1, 0x80], Fault::ReservedBits),
            ([0x91, 0x80], Fault::ReservedBits),
            ([0x83, 0x80], Fault::ReservedOpcode(3)),
            ([0x8f, 0x80], Fault::ReservedOpcode(15)),
            ([0x81, 0x05], Fault::Unmasked),
            ([0x08, 0x80], Fault::ControlFragmented),
            ([0x89, 0xfe], Fault::ControlTooLong),
            ([0x8a, 0xff], Fault::ControlTooLong),
        ] {
            assert_eq!(Head::parse(&bytes), Err(fault));
            assert_eq!(fault.code(), 1002);
        }
        let huge = [0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(Head::parse(&huge), Err(Fault::Length));
    }
}
