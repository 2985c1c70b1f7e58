//! Where the next packet of a `gen_tcp` socket in `{packet, Mode}` ends.
//!
//! The modes and their limits are those of
//! [`inet:setopts/2`](https://www.erlang.org/doc/man/inet.html#setopts-2), checked against real
//! sockets of OTP 25.

use crate::limits::PACKET_MAX;

/// What `{packet, Mode}` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// `raw` and `0`: whatever is there.
    Raw,
    /// `1`: one byte of length before each packet.
    One,
    /// `2`: two bytes of length, big endian.
    Two,
    /// `4`: four bytes of length, big endian.
    Four,
    /// `line`: up to and with each line end.
    Line {
        /// The line's last byte, `line_delimiter`: `\n` unless set.
        delimiter: u8,
    },
    /// `http`, `http_bin`, `httph`, `httph_bin`: read by [`HttpReader`](crate::http1::HttpReader),
    /// not by [`find`].
    Http {
        /// Whether strings come as binaries: `http_bin` and `httph_bin`.
        bin: bool,
        /// Whether reading starts at the headers: `httph` and `httph_bin`.
        headers_only: bool,
    },
}

/// What [`find`] saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A packet is whole: skip `skip` bytes of length field, then deliver `take` bytes (which may
    /// be none).
    Packet {
        /// Bytes that are consumed but not delivered.
        skip: usize,
        /// Bytes that are delivered.
        take: usize,
    },
    /// More bytes are needed.
    More {
        /// How long the packet will be with its length field, when that can be seen already.
        total: Option<usize>,
    },
    /// The packet is longer than `packet_size`, or than [`PACKET_MAX`]: `{error, emsgsize}`, and
    /// the socket closes.
    TooLong,
}

/// Finds the next packet at the beginning of `bytes`.
///
/// `packet_size` is the option of that name: the longest packet without its length field, 0 for no
/// limit of the owner's. `line_limit` is the `buffer` option (`line_length` of
/// `erlang:decode_packet/3`), 0 for none: a longer line is delivered in pieces of that size, as
/// `gen_tcp` does. Bytes that never hold a line end are bounded by whichever of the two is set, and
/// by [`PACKET_MAX`].
///
/// In mode `Http` the answer is that of `Raw`; the caller reads with `HttpReader` instead.
pub fn find(mode: Mode, bytes: &[u8], packet_size: usize, line_limit: usize) -> Found {
    match mode {
        Mode::Raw | Mode::Http { .. } => raw(bytes),
        Mode::One => counted::<1>(bytes, packet_size),
        Mode::Two => counted::<2>(bytes, packet_size),
        Mode::Four => counted::<4>(bytes, packet_size),
        Mode::Line { delimiter } => line(bytes, delimiter, packet_size, line_limit),
    }
}

fn raw(bytes: &[u8]) -> Found {
    match bytes.len() {
        0 => Found::More { total: None },
        take => Found::Packet { skip: 0, take },
    }
}

fn counted<const N: usize>(bytes: &[u8], packet_size: usize) -> Found {
    let Some(length) = bytes.first_chunk::<N>() else {
        return Found::More { total: None };
    };
    let take = length
        .iter()
        .fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    if take > limit(packet_size) {
        Found::TooLong
    } else if bytes.len() < N + take {
        Found::More {
            total: Some(N + take),
        }
    } else {
        Found::Packet { skip: N, take }
    }
}

/// `packet_size` is compared with what is known of the line before `line_limit` is: that is the
/// order of OTP's.
fn line(bytes: &[u8], delimiter: u8, packet_size: usize, line_limit: usize) -> Found {
    let end = memchr::memchr(delimiter, bytes).map(|at| at + 1);
    let known = end.unwrap_or(bytes.len());
    if known > limit(packet_size) {
        return Found::TooLong;
    }
    match end {
        _ if line_limit != 0 && known > line_limit => Found::Packet {
            skip: 0,
            take: line_limit,
        },
        Some(take) => Found::Packet { skip: 0, take },
        None if line_limit != 0 && known == line_limit => Found::Packet {
            skip: 0,
            take: line_limit,
        },
        None => Found::More { total: None },
    }
}

fn limit(packet_size: usize) -> usize {
    if packet_size == 0 {
        PACKET_MAX
    } else {
        packet_size.min(PACKET_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINE: Mode = Mode::Line { delimiter: b'\n' };
    const MORE: Found = Found::More { total: None };

    fn packet(skip: usize, take: usize) -> Found {
        Found::Packet { skip, take }
    }

    #[test]
    fn raw_takes_what_is_there() {
        assert_eq!(find(Mode::Raw, b"", 0, 0), MORE);
        assert_eq!(find(Mode::Raw, b"abc", 2, 2), packet(0, 3));
    }

    #[test]
    fn lines_end_where_they_are_told_to() {
        let mode = Mode::Line { delimiter: b';' };
        assert_eq!(find(mode, b"a\nb;c", 0, 0), packet(0, 4));
        assert_eq!(find(mode, b"a\nb", 0, 0), MORE);
    }

    #[test]
    fn counted_packets() {
        assert_eq!(find(Mode::One, b"", 0, 0), MORE);
        assert_eq!(find(Mode::One, b"\0ab", 0, 0), packet(1, 0));
        assert_eq!(
            find(Mode::One, b"\x03ab", 0, 0),
            Found::More { total: Some(4) }
        );
        assert_eq!(find(Mode::One, b"\x03abcd", 0, 0), packet(1, 3));
        assert_eq!(find(Mode::Two, b"\x01", 0, 0), MORE);
        assert_eq!(
            find(Mode::Two, b"\x01\x00", 0, 0),
            Found::More { total: Some(258) }
        );
        assert_eq!(find(Mode::Four, b"\0\0\0", 0, 0), MORE);
        assert_eq!(find(Mode::Four, b"\0\0\0\x01abc", 0, 0), packet(4, 1));
    }

    #[test]
    fn packet_size_bounds_the_packet_without_its_length_field() {
        assert_eq!(find(Mode::Two, b"\0\x02ab", 2, 0), packet(2, 2));
        assert_eq!(find(Mode::Two, b"\0\x03", 2, 0), Found::TooLong);
    }

    #[test]
    fn four_bytes_promise_no_more_than_the_limit() {
        let head = |length: usize| (length as u32).to_be_bytes();
        assert_eq!(
            find(Mode::Four, &head(PACKET_MAX), 0, 0),
            Found::More {
                total: Some(PACKET_MAX + 4)
            }
        );
        assert_eq!(
            find(Mode::Four, &head(PACKET_MAX + 1), 0, 0),
            Found::TooLong
        );
        assert_eq!(
            find(Mode::Four, &head(PACKET_MAX + 1), usize::MAX, 0),
            Found::TooLong
        );
        assert_eq!(find(Mode::Four, &[0xff; 4], 0, 0), Found::TooLong);
    }

    /// Each case was seen on a socket of OTP 25.
    #[test]
    fn lines_as_gen_tcp_gives_them() {
        let x = [b'x'; 5000];
        let ended = |count: usize| [&x[..count], b"\nrest\n"].concat();
        let line = |bytes: &[u8], packet_size, limit| find(LINE, bytes, packet_size, limit);
        assert_eq!(line(b"", 0, 100), MORE);
        assert_eq!(line(b"ab\ncd", 0, 100), packet(0, 3));
        assert_eq!(line(b"\n", 0, 100), packet(0, 1));
        assert_eq!(line(&ended(99), 0, 100), packet(0, 100));
        assert_eq!(line(&ended(100), 0, 100), packet(0, 100));
        assert_eq!(line(&ended(250), 0, 100), packet(0, 100));
        assert_eq!(line(&x[..99], 0, 100), MORE);
        assert_eq!(line(&x[..100], 0, 100), packet(0, 100));
        assert_eq!(line(&ended(49), 50, 1460), packet(0, 50));
        assert_eq!(line(&ended(50), 50, 1460), Found::TooLong);
        assert_eq!(line(&x[..50], 50, 1460), MORE);
        assert_eq!(line(&x[..51], 50, 1460), Found::TooLong);
    }

    proptest! {
        #[test]
        fn never_reaches_past_the_bytes(
            bytes in prop::collection::vec(prop_oneof![Just(0u8), Just(b'\n'), any::<u8>()], 0..300),
            size in 0usize..400,
            limit in 0usize..400,
        ) {
            for mode in [Mode::Raw, Mode::One, Mode::Two, Mode::Four, LINE] {
                match find(mode, &bytes, size, limit) {
                    Found::Packet { skip, take } => prop_assert!(skip + take <= bytes.len()),
                    Found::More { total: Some(total) } => prop_assert!(total > bytes.len()),
                    Found::More { total: None } | Found::TooLong => {}
                }
            }
        }
    }
}
