//! Header names as `erlang:decode_packet/3` gives them.

/// The header names that `decode_packet` gives as atoms, in its order.
///
/// The number in `{http_header, Bit, ...}` is the place in this table counted from 1, and 0 for
/// every other name.
pub const KNOWN_HEADERS: [&str; 52] = [
    "Cache-Control",
    "Connection",
    "Date",
    "Pragma",
    "Transfer-Encoding",
    "Upgrade",
    "Via",
    "Accept",
    "Accept-Charset",
    "Accept-Encoding",
    "Accept-Language",
    "Authorization",
    "From",
    "Host",
    "If-Modified-Since",
    "If-Match",
    "If-None-Match",
    "If-Range",
    "If-Unmodified-Since",
    "Max-Forwards",
    "Proxy-Authorization",
    "Range",
    "Referer",
    "User-Agent",
    "Age",
    "Location",
    "Proxy-Authenticate",
    "Public",
    "Retry-After",
    "Server",
    "Vary",
    "Warning",
    "Www-Authenticate",
    "Allow",
    "Content-Base",
    "Content-Encoding",
    "Content-Language",
    "Content-Length",
    "Content-Location",
    "Content-Md5",
    "Content-Range",
    "Content-Type",
    "Etag",
    "Expires",
    "Last-Modified",
    "Accept-Ranges",
    "Set-Cookie",
    "Set-Cookie2",
    "X-Forwarded-For",
    "Cookie",
    "Keep-Alive",
    "Proxy-Connection",
];

/// Place of `Transfer-Encoding` in [`KNOWN_HEADERS`].
pub(super) const TRANSFER_ENCODING: u8 = place("Transfer-Encoding");
/// Place of `Content-Length` in [`KNOWN_HEADERS`].
pub(super) const CONTENT_LENGTH: u8 = place("Content-Length");

/// Places in [`KNOWN_HEADERS`] of headers that somebody looks at.
pub mod known {
    use super::place;

    /// `Connection`
    pub const CONNECTION: usize = place("Connection") as usize;
    /// `Upgrade`
    pub const UPGRADE: usize = place("Upgrade") as usize;
    /// `Accept-Language`
    pub const ACCEPT_LANGUAGE: usize = place("Accept-Language") as usize;
    /// `Host`
    pub const HOST: usize = place("Host") as usize;
    /// `Content-Type`
    pub const CONTENT_TYPE: usize = place("Content-Type") as usize;
}

/// Longest name that `decode_packet` formats `Like-This`, in bytes; a longer one is given as it was
/// sent.
///
/// Found by trying on OTP 25, where 50 bytes are formatted and 51 are not.
pub const FORMATTED_MAX: usize = 50;

/// A header's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'b> {
    known: Option<u8>,
    raw: &'b [u8],
}

impl<'b> Name<'b> {
    /// Looks the name up. One probe of a perfect hash, whatever the case of its letters.
    pub fn new(raw: &'b [u8]) -> Name<'b> {
        Name {
            known: lookup(raw),
            raw,
        }
    }

    /// The name's place in [`KNOWN_HEADERS`], when it is there: the field is that atom.
    pub fn known(&self) -> Option<usize> {
        self.known.map(usize::from)
    }

    /// The number in `{http_header, Bit, ...}`: the place in [`KNOWN_HEADERS`] counted from 1, or
    /// 0.
    pub fn bit(&self) -> u8 {
        self.known.map_or(0, |place| place + 1)
    }

    /// The name as it was sent.
    pub fn raw(&self) -> &'b [u8] {
        self.raw
    }

    /// The name as `decode_packet` formats it, in `scratch` only when it was not sent like that.
    pub fn formatted<'s>(&self, scratch: &'s mut [u8; FORMATTED_MAX]) -> &'s [u8]
    where
        'b: 's,
    {
        if let Some(place) = self.known() {
            return KNOWN_HEADERS[place].as_bytes();
        }
        let Some(room) = scratch.get_mut(..self.raw.len()) else {
            return self.raw;
        };
        let mut first = true;
        for (to, &byte) in room.iter_mut().zip(self.raw) {
            *to = if first {
                byte.to_ascii_uppercase()
            } else {
                byte.to_ascii_lowercase()
            };
            // A dash at the beginning of a word does not end it: OTP gives "A--b" and "-a-B".
            first = !first && byte == b'-';
        }
        if room == self.raw { self.raw } else { room }
    }
}

/// Slot of no name in [`SLOTS`].
const FREE: u8 = u8::MAX;
/// Hash -> place in [`KNOWN_HEADERS`]. Built by the compiler, which refuses a collision.
const SLOTS: [u8; 256] = slots();

fn lookup(name: &[u8]) -> Option<u8> {
    if name.len() < 3 {
        return None;
    }
    let place = SLOTS[hash(name)];
    let known = KNOWN_HEADERS.get(usize::from(place))?.as_bytes();
    // Most clients write names as the table does, and comparing whole words is quicker.
    (name == known || name.eq_ignore_ascii_case(known)).then_some(place)
}

/// The factors were searched for so that no two known names meet. `| 0x20` makes the letters' case
/// not matter.
const fn hash(name: &[u8]) -> usize {
    let first = (name[0] | 0x20) as usize;
    let late = (name[name.len() - 2] | 0x20) as usize;
    (name.len() + 11 * first + 35 * late) & 255
}

const fn slots() -> [u8; 256] {
    let mut slots = [FREE; 256];
    let mut place = 0;
    while place < KNOWN_HEADERS.len() {
        let slot = hash(KNOWN_HEADERS[place].as_bytes());
        assert!(slots[slot] == FREE, "two known headers share a slot");
        slots[slot] = place as u8;
        place += 1;
    }
    slots
}

const fn place(name: &str) -> u8 {
    SLOTS[hash(name.as_bytes())]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_names_whatever_their_case() {
        for (place, known) in KNOWN_HEADERS.iter().enumerate() {
            for raw in [
                known.to_string(),
                known.to_lowercase(),
                known.to_uppercase(),
            ] {
                let name = Name::new(raw.as_bytes());
                assert_eq!(
                    (name.known(), usize::from(name.bit())),
                    (Some(place), place + 1)
                );
                assert_eq!(name.formatted(&mut [0; FORMATTED_MAX]), known.as_bytes());
            }
        }
        assert_eq!(KNOWN_HEADERS[usize::from(CONTENT_LENGTH)], "Content-Length");
        assert_eq!(
            KNOWN_HEADERS[usize::from(TRANSFER_ENCODING)],
            "Transfer-Encoding"
        );
    }

    #[test]
    fn other_names_as_otp_formats_them() {
        let long = [b'a'; FORMATTED_MAX + 1];
        let capital = [b"A".as_slice(), &long[..FORMATTED_MAX - 1]].concat();
        for (raw, formatted) in [
            (&b"x-FOO-bar"[..], &b"X-Foo-Bar"[..]),
            (b"-a-b", b"-a-B"),
            (b"a--b", b"A--b"),
            (b"a_b", b"A_b"),
            (b"1a-b", b"1a-B"),
            (b"x", b"X"),
            (b"", b""),
            (b"Hosts", b"Hosts"),
            (b"sec-websocket-VERSION", b"Sec-Websocket-Version"),
            (&long[..FORMATTED_MAX], &capital),
            (&long, &long),
        ] {
            let name = Name::new(raw);
            assert_eq!((name.known(), name.bit(), name.raw()), (None, 0, raw));
            assert_eq!(name.formatted(&mut [0; FORMATTED_MAX]), formatted);
        }
    }
}
