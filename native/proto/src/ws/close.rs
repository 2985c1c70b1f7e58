//! Close frames (RFC 6455, sections 5.5.1 and 7.4).

use super::head::put_head;
use super::utf8::Utf8;
use super::{Fault, Opcode};

/// Bytes of the reason in a close frame, at most: what a control frame has behind the code.
const REASON_MAX: usize = 123;

/// What a client closes with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Closing {
    /// `None` where it names no code: to an application that is 1005.
    pub code: Option<u16>,
}

impl Closing {
    /// Reads the payload of a close frame.
    pub(super) fn parse(payload: &[u8]) -> Result<Self, Fault> {
        let (code, reason) = match payload {
            [] => return Ok(Closing { code: None }),
            [_] => return Err(Fault::HalfACode),
            [high, low, reason @ ..] => (u16::from_be_bytes([*high, *low]), reason),
        };
        if !may_be_sent(code) {
            return Err(Fault::CloseCode(code));
        }
        let mut utf8 = Utf8::default();
        utf8.check(reason)?;
        utf8.end()?;
        Ok(Closing { code: Some(code) })
    }
}

/// Those of section 7.4 and of IANA's registry; 1004, 1005, 1006 and 1015 never go over the wire.
fn may_be_sent(code: u16) -> bool {
    matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999)
}

/// A server's close frame. Of the reason it takes as much as fits; without a code there is none.
pub fn put_close(code: Option<u16>, reason: &str) -> Vec<u8> {
    let reason = &reason[..reason.floor_char_boundary(REASON_MAX)];
    let payload = match code {
        Some(_) => 2 + reason.len(),
        None => 0,
    };
    let (head, size) = put_head(Opcode::Close, payload);
    let mut frame = head[..size].to_vec();
    if let Some(code) = code {
        frame.extend(code.to_be_bytes());
        frame.extend(reason.as_bytes());
    }
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_may_be_sent() {
        for code in [1000, 1003, 1007, 1011, 1012, 1014, 3000, 4999] {
            let closing = Closing::parse(&u16::to_be_bytes(code));
            assert_eq!(closing, Ok(Closing { code: Some(code) }));
        }
        for code in [
            0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535,
        ] {
            let fault = Fault::CloseCode(code);
            assert_eq!(Closing::parse(&u16::to_be_bytes(code)), Err(fault));
            assert_eq!(fault.code(), 1002);
        }
    }

    #[test]
    fn payloads() {
        assert_eq!(Closing::parse(b""), Ok(Closing { code: None }));
        assert_eq!(Closing::parse(b"\x03"), Err(Fault::HalfACode));
        let bye = [b"\x03\xe8", "tschüß".as_bytes()].concat();
        assert_eq!(Closing::parse(&bye), Ok(Closing { code: Some(1000) }));
        assert_eq!(Closing::parse(&bye[..bye.len() - 1]), Err(Fault::Utf8));
    }

    #[test]
    fn frames() {
        assert_eq!(put_close(None, "why"), [0x88, 0]);
        assert_eq!(put_close(Some(1000), ""), [0x88, 2, 3, 0xe8]);
        assert_eq!(put_close(Some(1001), "ab"), *b"\x88\x04\x03\xe9ab");
        let long = put_close(Some(1000), &"ü".repeat(100));
        assert_eq!((long[1], long.len()), (124, 126));
    }
}
