//! What the two longest control messages tell: who a peer is, and who a client is.

use std::fmt;
use std::net::SocketAddr;

use crate::fields::{ControlError, Fields, put_number, put_optional, put_text};
use crate::frame::ConnectionId;
use crate::limits::{HEAD_LEN, MAX_WINDOW, MIN_MAX_CONTENT, NAME_MAX, SECRET_TEXT_MAX, TOKEN_MAX};

/// `hello`: who a side is and how much it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The highest protocol version that the sender speaks.
    pub version: u32,
    /// The sender's name, for people to read.
    pub name: String,
    /// Random bytes in hex, fresh for each link.
    pub nonce: String,
    /// Bytes per connection that the sender takes before its peer must wait.
    pub window: u32,
    /// Bytes, the largest content that the sender takes in one frame.
    pub max_frame: u32,
    /// From ejabberd: the link's name.
    pub link: Option<String>,
    /// For how many seconds the sender keeps a link that dropped; `None` is 0.
    pub resume_timeout: Option<u32>,
    /// With `link` and `resume`: what only the two ends of that link know.
    pub token: Option<String>,
    /// From the ECM: the name of the link that it wants to resume.
    pub resume: Option<String>,
    /// From the ECM that resumes: bytes of frames it has received.
    pub received: Option<u64>,
    /// From ejabberd, where the link is resumed: bytes of frames it has received.
    pub resumed: Option<u64>,
    /// From ejabberd with a secret: an HMAC-SHA256 in hex.
    pub proof: Option<String>,
}

impl Hello {
    pub(crate) fn parse(fields: Fields<'_>) -> Result<Hello, ControlError> {
        let fields = fields.only_keys()?;
        let max_frame =
            fields.required_number("max_frame", u64::from(u32::MAX) - HEAD_LEN as u64)?;
        if max_frame < u64::from(MIN_MAX_CONTENT) {
            return Err(fields.bad("max_frame", "below 4096, the longest control message"));
        }
        fields.required("nonce")?;
        Ok(Hello {
            version: fields.required_number("version", u64::from(u32::MAX))? as u32,
            name: fields.required_name("name", NAME_MAX)?,
            nonce: hex(&fields, "nonce")?.unwrap_or_default(),
            window: fields.required_number("window", u64::from(MAX_WINDOW))? as u32,
            max_frame: max_frame as u32,
            link: fields.optional_text("link", NAME_MAX)?,
            resume_timeout: fields
                .optional_number("resume_timeout", u64::from(u32::MAX))?
                .map(|seconds| seconds as u32),
            token: hex(&fields, "token")?,
            resume: fields.optional_text("resume", NAME_MAX)?,
            received: fields.optional_number("received", u64::MAX)?,
            resumed: fields.optional_number("resumed", u64::MAX)?,
            proof: hex(&fields, "proof")?,
        })
    }
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hello version={}", self.version)?;
        put_text(f, "name", &self.name, NAME_MAX)?;
        put_text(f, "nonce", &self.nonce, SECRET_TEXT_MAX)?;
        write!(f, " window={} max_frame={}", self.window, self.max_frame)?;
        put_optional(f, "link", self.link.as_deref(), NAME_MAX)?;
        put_number(f, "resume_timeout", self.resume_timeout.map(u64::from))?;
        put_optional(f, "token", self.token.as_deref(), SECRET_TEXT_MAX)?;
        put_optional(f, "resume", self.resume.as_deref(), NAME_MAX)?;
        put_number(f, "received", self.received)?;
        put_number(f, "resumed", self.resumed)?;
        put_optional(f, "proof", self.proof.as_deref(), SECRET_TEXT_MAX)
    }
}

/// `open`: a client connected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// The connection's id, chosen by the ECM and never used twice on a link.
    pub id: ConnectionId,
    /// The service that the client wants.
    pub service: String,
    /// The client's own address.
    pub peer: SocketAddr,
    /// The address that the client connected to.
    pub local: SocketAddr,
    /// What TLS agreed on, where the ECM ended TLS for this client.
    pub tls: Option<TlsFacts>,
}

impl Open {
    pub(crate) fn parse(mut fields: Fields<'_>) -> Result<Open, ControlError> {
        let id = fields.id()?;
        let fields = fields.only_keys()?;
        Ok(Open {
            id,
            service: fields.required_name("service", NAME_MAX)?,
            peer: fields.required_token("peer")?,
            local: fields.required_token("local")?,
            tls: TlsFacts::parse(&fields)?,
        })
    }
}

impl fmt::Display for Open {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "open {}", self.id)?;
        put_text(f, "service", &self.service, NAME_MAX)?;
        put_text(f, "peer", &self.peer.to_string(), NAME_MAX)?;
        put_text(f, "local", &self.local.to_string(), NAME_MAX)?;
        self.tls.as_ref().map_or(Ok(()), |tls| tls.fmt(f))
    }
}

/// What a client's TLS session agreed on, for authentication and for logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFacts {
    /// The protocol's version, for instance `TLSv1.3`.
    pub version: String,
    /// The cipher suite's IANA name.
    pub cipher: Option<String>,
    /// The server name that the client asked for (RFC 6066, 3).
    pub sni: Option<String>,
    /// The application protocol agreed on (RFC 7301).
    pub alpn: Option<String>,
    /// `tls-exporter` channel binding in base64 (RFC 9266).
    pub cb_exporter: Option<String>,
    /// `tls-server-end-point` channel binding in base64 (RFC 5929, 4).
    pub cb_endpoint: Option<String>,
}

impl TlsFacts {
    fn parse(fields: &Fields<'_>) -> Result<Option<TlsFacts>, ControlError> {
        let Some(version) = fields.optional_text("tls", TOKEN_MAX)? else {
            return Ok(None);
        };
        Ok(Some(TlsFacts {
            version,
            cipher: fields.optional_text("cipher", TOKEN_MAX)?,
            sni: fields.optional_text("sni", NAME_MAX)?,
            alpn: fields.optional_text("alpn", NAME_MAX)?,
            cb_exporter: base64(fields, "cb_exporter")?,
            cb_endpoint: base64(fields, "cb_endpoint")?,
        }))
    }
}

impl fmt::Display for TlsFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        put_text(f, "tls", &self.version, TOKEN_MAX)?;
        put_optional(f, "cipher", self.cipher.as_deref(), TOKEN_MAX)?;
        put_optional(f, "sni", self.sni.as_deref(), NAME_MAX)?;
        put_optional(f, "alpn", self.alpn.as_deref(), NAME_MAX)?;
        put_optional(
            f,
            "cb_exporter",
            self.cb_exporter.as_deref(),
            SECRET_TEXT_MAX,
        )?;
        put_optional(
            f,
            "cb_endpoint",
            self.cb_endpoint.as_deref(),
            SECRET_TEXT_MAX,
        )
    }
}

/// The hex digits at `key`, as written, two a byte.
pub(crate) fn hex(fields: &Fields<'_>, key: &'static str) -> Result<Option<String>, ControlError> {
    let digits = fields.optional_secret(key, u8::is_ascii_hexdigit, SECRET_TEXT_MAX)?;
    match digits {
        Some(digits) if digits.len() % 2 == 1 => Err(fields.bad(key, "an odd number of digits")),
        digits => Ok(digits),
    }
}

fn base64(fields: &Fields<'_>, key: &'static str) -> Result<Option<String>, ControlError> {
    let alphabet = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/=".contains(byte);
    fields.optional_secret(key, alphabet, SECRET_TEXT_MAX)
}
