//! The receiving half of one link: bytes in, events out, for either side.
//!
//! ```text
//!                     ┌───────┐
//!        ┌────────────┤ Start ├─────────────┐
//!        │ frame of   └───┬───┘   hello on  │
//!        │ a client       │      connection 0
//!        ▼                │                 ▼
//!    ┌───────┐            │            ┌─────────┐
//!    │  V1   │            │            │   V2    │
//!    └───┬───┘            ▼            └────┬────┘
//!        │            ┌────────┐            │
//!        └───────────►│ Broken │◄───────────┘   at the first error, for good
//!                     └────────┘
//! ```
//!
//! Connections are not known here: whether an id is open, and whether its credit holds, is for
//! the owner of the [`Table`](crate::table::Table) to say.

pub use crate::config::{LinkConfig, Resume, Role};
use crate::conn::Conn;
use crate::control::{Control, Hello};
use crate::credit::{RecvWindow, SendCredit};
use crate::error::{Excerpt, LinkError, Place};
pub use crate::event::Event;
use crate::frame::{ConnectionId, Decoder, Piece};
use crate::limits::{ACK_EVERY, CONTROL_LINE_MAX};

/// The highest version of the protocol that is spoken here.
pub const VERSION: u32 = 2;

#[derive(Clone, Debug)]
enum Phase {
    /// Nothing is known of the peer.
    Start,
    /// Version 1 by configuration, of which the owner was not told yet.
    Silent,
    V1,
    V2,
    Broken(Box<LinkError>),
}

/// The receiving half of a link.
#[derive(Clone, Debug)]
pub struct Link {
    phase: Phase,
    version: Option<u32>,
    decoder: Decoder,
    /// A control message that was cut by a frame's or the input's end.
    line: Vec<u8>,
    peer: Option<Hello>,
    /// The first frame was on connection 0, so the peer understands control messages.
    control_seen: bool,
    unknown_verbs: u64,
    /// Bytes of frames taken in, the handshake's left out.
    received: u64,
    /// What the last acknowledgement said of it.
    acked: u64,
    /// Something else than an acknowledgement came after that.
    news: bool,
    resume_timeout: u32,
    config: LinkConfig,
}

impl Link {
    /// A link of which nothing has come yet.
    pub fn new(config: LinkConfig) -> Self {
        let v1 = config.role == Role::Edge && config.version == 1;
        Link {
            phase: if v1 { Phase::Silent } else { Phase::Start },
            version: v1.then_some(1),
            decoder: Decoder::new(config.max_content),
            line: Vec::new(),
            peer: None,
            control_seen: config.role == Role::Edge && !v1,
            unknown_verbs: 0,
            received: 0,
            acked: 0,
            news: false,
            resume_timeout: 0,
            config,
        }
    }

    /// The stream behind a handshake, whose decoder may have begun on it.
    pub(crate) fn begin(
        config: LinkConfig,
        decoder: Decoder,
        peer: Option<Hello>,
        resume_timeout: u32,
    ) -> Self {
        let version = if peer.is_some() { VERSION } else { 1 };
        Link {
            phase: if version == 1 { Phase::V1 } else { Phase::V2 },
            version: Some(version),
            control_seen: peer.is_some(),
            decoder,
            peer,
            resume_timeout,
            ..Link::new(config)
        }
    }

    /// The hello that this side sends: an edge of version 2 as its first frame, a node in answer
    /// to the edge's, when it got `Up { version: 2 }`.
    pub fn hello(&self) -> Control {
        Control::Hello(Hello {
            version: VERSION,
            name: self.config.name.clone(),
            nonce: self.config.nonce.clone(),
            window: self.config.window,
            max_frame: self.config.max_content,
            link: self.config.link.clone(),
            resume_timeout: None,
            token: None,
            resume: None,
            received: None,
            resumed: None,
            proof: None,
        })
    }

    /// The next event out of `input`, which is advanced past it; `None` says that the input is
    /// used up. Nothing waits for a whole frame, only a control message for its newline.
    ///
    /// An edge of version 1 is `Up` before anything has come: call this once with no input.
    ///
    /// # Errors
    /// The link must be closed; tell the peer where [`Link::hears_errors`]. Every later call
    /// gives the same error.
    #[inline]
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, LinkError> {
        let before = input.len();
        let event = self.event(input);
        self.received += (before - input.len()) as u64;
        self.news |= !matches!(event, Ok(None | Some(Event::Ack { .. })));
        event
    }

    #[inline]
    fn event<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, LinkError> {
        if !matches!(self.phase, Phase::V1 | Phase::V2) {
            return self.start(input).map_err(|error| self.broken(error));
        }
        loop {
            let before = *input;
            match self.decoder.next(input) {
                Ok(None) => return Ok(None),
                Ok(Some(Piece::Content { id, bytes })) if !id.is_control() => {
                    return Ok(Some(Event::Content { id, bytes }));
                }
                Ok(Some(Piece::End { id })) if !id.is_control() => {
                    return Ok(Some(Event::End { id }));
                }
                Ok(Some(piece)) => match self.control(piece, before, input) {
                    Ok(None) => {}
                    Ok(event) => return Ok(event),
                    Err(error) => return Err(self.broken(error)),
                },
                Err(error) => return Err(self.broken(error.into())),
            }
        }
    }

    /// The version of the link, once it is known.
    pub fn version(&self) -> Option<u32> {
        self.version
    }

    /// What the peer said of itself, on a version 2 link that is up.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// A connection as it begins on this link, with the credit that both hellos name; without
    /// any limit in version 1.
    pub fn new_conn(&self) -> Conn {
        match &self.peer {
            Some(peer) => Conn::new(
                SendCredit::new(peer.window),
                RecvWindow::new(self.config.window),
            ),
            None => Conn::new(SendCredit::unlimited(), RecvWindow::unlimited()),
        }
    }

    /// Bytes, the largest content to send in one frame: the peer's `max_frame`, and never more
    /// than this side takes itself, which is all that is known in version 1.
    pub fn max_content_to_send(&self) -> u32 {
        let own = self.config.max_content;
        let peer = self.peer.as_ref();
        peer.map_or(own, |peer| peer.max_frame.min(own))
    }

    /// Would the peer understand an `error` message? Not in version 1, and not when what came
    /// was no frame at all.
    pub fn hears_errors(&self) -> bool {
        self.control_seen
    }

    /// Bytes of frames taken in since the handshake, also of one that is not whole yet.
    pub fn received(&self) -> u64 {
        self.received
    }

    /// For how many seconds both sides keep this link when it drops; 0 where one keeps none.
    pub fn resume_timeout(&self) -> u32 {
        self.resume_timeout
    }

    /// To be asked after each chunk: the acknowledgement that is due for how much has come.
    pub fn ack(&mut self) -> Option<Control> {
        if self.received - self.acked < ACK_EVERY {
            return None;
        }
        self.acknowledge()
    }

    /// To be asked each second: the acknowledgement that is due because something came. Not for
    /// acknowledgements alone, or two idle sides would never fall silent.
    pub fn ack_tick(&mut self) -> Option<Control> {
        if !self.news {
            return None;
        }
        self.acknowledge()
    }

    fn acknowledge(&mut self) -> Option<Control> {
        if self.resume_timeout == 0 {
            return None;
        }
        self.acked = self.received;
        self.news = false;
        Some(Control::Ack {
            bytes: self.received,
        })
    }

    /// Control messages that were ignored because this side does not know their verb.
    pub fn unknown_verbs(&self) -> u64 {
        self.unknown_verbs
    }

    /// Would the stream be cut inside a frame or a control message if it ended here?
    pub fn mid_frame(&self) -> bool {
        self.decoder.mid_frame() || !self.line.is_empty()
    }

    /// The link's stream has ended.
    ///
    /// # Errors
    /// It ended in the middle of something.
    pub fn end_of_input(&self) -> Result<(), LinkError> {
        let place = match (self.decoder.head_bytes(), self.decoder.current()) {
            (0, Some((id, missing))) => Place::Frame { id, missing },
            (0, None) if self.line.is_empty() => return Ok(()),
            (0, None) => Place::Control,
            (have, _) => Place::Head { have },
        };
        Err(LinkError::Truncated { place })
    }

    /// Keeps the error: a link that lost its place in the stream never finds it again.
    #[cold]
    fn broken(&mut self, error: LinkError) -> LinkError {
        self.phase = Phase::Broken(Box::new(error.clone()));
        error
    }

    /// As [`Link::next`], until the version is known.
    #[cold]
    fn start<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Event<'a>>, LinkError> {
        match &self.phase {
            Phase::Broken(error) => return Err(LinkError::clone(error)),
            Phase::Silent => return Ok(Some(self.up(1))),
            Phase::Start | Phase::V1 | Phase::V2 => {}
        }
        loop {
            let (before, decoder) = (*input, self.decoder.clone());
            let piece = self.decoder.next(input)?;
            let first = match piece {
                Some(Piece::Content { id, .. } | Piece::End { id }) => Some(id),
                None => self.decoder.current().map(|(id, _)| id),
            };
            if let Some(id) = first.filter(|id| !id.is_control()) {
                self.check_v1(id)?;
                // It is the owner's first event that says so; the frame comes again after it.
                (*input, self.decoder) = (before, decoder);
                return Ok(Some(self.up(1)));
            }
            self.control_seen |= first.is_some();
            let Some(piece) = piece else {
                return Ok(None);
            };
            if let Some(event) = self.control(piece, before, input)? {
                return Ok(Some(event));
            }
        }
    }

    /// May the first client's frame, on connection `id`, make this a version 1 link?
    fn check_v1(&self, id: ConnectionId) -> Result<(), LinkError> {
        if self.config.role == Role::Edge || !self.line.is_empty() {
            Err(LinkError::BeforeHello { id })
        } else if !self.config.allow_v1 {
            Err(LinkError::V1Refused { id })
        } else {
            Ok(())
        }
    }

    fn up(&mut self, version: u32) -> Event<'static> {
        self.phase = if version == 1 { Phase::V1 } else { Phase::V2 };
        self.version = Some(version);
        Event::Up { version }
    }

    /// Takes one control message, or a part of one, out of a `piece` of connection 0 and leaves
    /// the rest of it for the next call. `before` is the input as it was before the piece.
    #[cold]
    fn control<'a>(
        &mut self,
        piece: Piece<'a>,
        before: &'a [u8],
        input: &mut &'a [u8],
    ) -> Result<Option<Event<'a>>, LinkError> {
        if self.version == Some(1) {
            return Err(LinkError::ControlInV1);
        }
        let Piece::Content { bytes, .. } = piece else {
            return Err(LinkError::ControlEnd);
        };
        let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
            self.keep(bytes)?;
            return Ok(None);
        };
        let unused = bytes.len() - end - 1;
        *input = &before[before.len() - input.len() - unused..];
        self.decoder.give_back(unused);
        if self.line.is_empty() && end < CONTROL_LINE_MAX {
            return self.message(&bytes[..end]);
        }
        self.keep(&bytes[..end])?;
        let line = std::mem::take(&mut self.line);
        self.message(&line)
    }

    /// Keeps the beginning of a control message.
    fn keep(&mut self, part: &[u8]) -> Result<(), LinkError> {
        // A line of the full length has its newline still to come.
        let room = CONTROL_LINE_MAX - 1 - self.line.len();
        self.line.extend_from_slice(&part[..part.len().min(room)]);
        if part.len() > room {
            let line = Excerpt::new(&self.line);
            return Err(LinkError::LineTooLong { line });
        }
        Ok(())
    }

    /// What a control message means here and now; `None` where nobody has to know.
    fn message(&mut self, line: &[u8]) -> Result<Option<Event<'static>>, LinkError> {
        let excerpt = || Excerpt::new(line);
        let message = Control::parse(line).map_err(|error| LinkError::Control {
            error,
            line: excerpt(),
        })?;
        let hello_due = self.version.is_none();
        Ok(Some(match message {
            Some(Control::Hello(hello)) if hello_due => self.greeted(hello)?,
            _ if hello_due => return Err(LinkError::NotHello { line: excerpt() }),
            None => {
                self.unknown_verbs += 1;
                return Ok(None);
            }
            Some(Control::Hello(_)) => return Err(LinkError::SecondHello),
            Some(Control::Open(open)) => match self.config.role {
                Role::Node => Event::Open(Box::new(open)),
                Role::Edge => return Err(LinkError::WrongSide { verb: "open" }),
            },
            Some(Control::Auth { .. }) => match self.config.role {
                // Nobody asked for it: a node without a secret takes everyone.
                Role::Node => return Ok(None),
                Role::Edge => return Err(LinkError::WrongSide { verb: "auth" }),
            },
            Some(Control::Window { id, bytes }) => Event::Window { id, bytes },
            Some(Control::Close { id, reason }) => Event::Close { id, reason },
            Some(Control::Reset { id, reason }) => Event::Reset { id, reason },
            Some(Control::Ping { word }) => Event::Ping { word },
            Some(Control::Pong { word }) => Event::Pong { word },
            Some(Control::Ack { bytes }) => Event::Ack { bytes },
            Some(Control::Goaway {
                reason,
                retry_after,
                within,
            }) => Event::Goaway {
                reason,
                retry_after,
                within,
            },
            Some(Control::Error { code, text }) => Event::PeerError { code, text },
        }))
    }

    /// The peer's hello: an edge may offer more than we speak, a node answers with no more.
    fn greeted(&mut self, hello: Hello) -> Result<Event<'static>, LinkError> {
        let version = hello.version;
        if version < VERSION || (self.config.role == Role::Edge && version > VERSION) {
            return Err(LinkError::Version { version });
        }
        if self.config.role == Role::Edge && hello.link.is_none() {
            return Err(LinkError::NoLinkName);
        }
        self.peer = Some(hello);
        Ok(self.up(VERSION))
    }
}
