//! Every bound of the protocol, each with its unit, its reason and its source.
//!
//! A value that a peer can choose is held against one of these before anything is kept or
//! allocated for it.

/// Bytes of a frame's head: 10 digits, `|`, 20 digits, `|` (docs/protocol.md).
pub const HEAD_LEN: usize = 32;

/// Bytes of content in one frame, unless configured otherwise. One frame is one turn on the
/// link, so it also bounds how long a connection can hold up the others (docs/protocol.md).
pub const DEFAULT_MAX_CONTENT: u32 = 65_536;

/// Bytes, the smallest `max_frame` a side may offer: any control message must fit one frame.
pub const MIN_MAX_CONTENT: u32 = CONTROL_LINE_MAX as u32;

/// Bytes of credit a connection starts with. Small, because a million connections make it a
/// promise of 16 GB (docs/protocol.md, "Credit").
pub const DEFAULT_WINDOW: u32 = 16_384;

/// Bytes that the window of a busy connection grows to, where there is a budget for it: what is
/// under way in half a millisecond at 1 GB a second.
pub const GROWN_WINDOW_MAX: u32 = 524_288;

/// Bytes that all windows of a program may grow by: enough for a link's speed, and what is sent
/// in it must fit the resume buffers while its acknowledgements are on their way.
pub const GROWTH_MAX: u64 = 32 * 1024 * 1024;

/// Bytes, the most credit a connection may ever hold: 2³¹−1, as in HTTP/2 (RFC 9113, 6.9.1).
pub const MAX_WINDOW: u32 = 0x7fff_ffff;

/// Bytes of one control message, its newline included. The largest sensible one, an `open`
/// with every TLS fact at its own limit, takes about 3,100.
pub const CONTROL_LINE_MAX: usize = 4_096;

/// Bytes (decoded) of a name in a control message: of an ECM, a service, a link, a TLS server
/// name, an ALPN protocol. 255 is what DNS and ALPN allow (RFC 1035, 2.3.4; RFC 7301, 3.1).
pub const NAME_MAX: usize = 255;

/// Bytes (decoded) of a short token, such as a TLS version or a cipher suite's name. IANA's
/// longest cipher suite name has 45.
pub const TOKEN_MAX: usize = 64;

/// Bytes of a nonce, a proof or a channel binding as written (hex or base64): 64 raw bytes,
/// the size of the largest hash in use, in hex.
pub const SECRET_TEXT_MAX: usize = 128;

/// Hex digits of a nonce where a secret is used: 128 random bits do not come twice.
pub const NONCE_MIN: usize = 32;

/// Bytes of a shared secret, at least: 16 random ones cannot be guessed.
pub const SECRET_MIN: usize = 16;

/// Bytes of a shared secret, at most: a longer file is none.
pub const SECRET_MAX: usize = 1024;

/// Bytes of frames that come before the next `ack` is due (docs/protocol.md, "Resume").
pub const ACK_EVERY: u64 = 65_536;

/// Bytes sent on a link and not yet acknowledged, unless configured otherwise. Over it the link
/// goes on and cannot be resumed. A peer that keeps up leaves what is on the way, some MB, and
/// `ACK_EVERY`.
pub const RESUME_BUFFER_DEFAULT: usize = 16 * 1024 * 1024;

/// Seconds for which a link that dropped is kept, unless configured otherwise: longer than a
/// switch or a firewall takes to come back, shorter than people wait.
pub const RESUME_TIMEOUT_DEFAULT: u32 = 30;

/// Bytes (decoded) of the `text` of an `error` message: one sentence with its excerpt.
pub const ERROR_TEXT_MAX: usize = 512;

/// Bytes of a peer's garbage that an error sentence shows: enough to recognise what was sent
/// (a TLS hello, an HTTP request), too few to fill a log.
pub const EXCERPT_MAX: usize = 64;

/// Connections open at once on one link, unless configured otherwise. The project's aim is a
/// million users a node, and all of them may come over one link.
pub const MAX_CONNECTIONS_DEFAULT: usize = 1_048_576;

/// Ids remembered on a version 1 link after this side closed the connection and before the
/// peer ended its half. Without a `close` message a late frame of such an id is told from a new
/// connection only by this memory; 65,536 of them take about 4 MB at worst.
pub const TOMBSTONES_MAX: usize = 65_536;

// HTTP and packets: what one client may make its connection hold.

/// Bytes of a request's head, request line and empty line included. Nginx and Apache allow about
/// as much by default (4 x 8 KiB, 8 KiB a line); a browser with full cookies sends under 8 KiB.
pub const HTTP_HEAD_MAX: usize = 16 * 1024;

/// Bytes of a request target. RFC 9112, section 3, asks for 8,000 at least.
pub const HTTP_TARGET_MAX: usize = 8 * 1024;

/// Bytes of a request line: the longest target, and room for a method, the version and CRLF.
pub const HTTP_REQUEST_LINE_MAX: usize = HTTP_TARGET_MAX + 64;

/// Headers in a head: the default of Apache and hyper. Browsers send 10 to 30.
pub const HTTP_FIELDS_MAX: usize = 100;

/// Bytes of a wrong line that are told in `{http_error, Line}`: as a string in Erlang each byte
/// takes 16.
pub const HTTP_ERROR_LINE_MAX: usize = 1024;

/// Bytes of the line before a chunk, its size and extensions. Nobody sends extensions.
pub const HTTP_CHUNK_LINE_MAX: usize = 1024;

/// Bytes of all chunk extensions of one body, so that a body of one-byte chunks cannot carry a
/// thousand times its size in them (CVE-2023-39326).
pub const HTTP_CHUNK_EXTENSIONS_MAX: usize = 4096;

/// Bytes of the trailers behind a chunked body.
pub const HTTP_TRAILERS_MAX: usize = 8 * 1024;

/// Bytes of a `{packet, 1 | 2 | 4 | line}` packet when its owner set no `packet_size`. `gen_tcp`
/// would wait for 2 GiB on the word of four bytes from the network; no XMPP or MQTT server takes
/// messages of this size.
pub const PACKET_MAX: usize = 64 * 1024 * 1024;

/// Bytes that a buffer may pin beside twice its content. Below this, giving memory back would
/// cost more copying than it saves: most stanzas and HTTP heads are smaller.
pub const BUFFER_SLACK: usize = 1024;

/// Fragments that a WebSocket message may come in, however small they are. Few clients fragment,
/// and those do so by the kilobyte.
pub const WS_FRAGMENTS_FREE: usize = 1024;

/// Bytes that fragments beyond those must have on average, so that empty ones cannot go on for
/// ever. (Autobahn's test suite sends 64 bytes each.)
pub const WS_FRAGMENT_MEAN: usize = 16;
