//! The receiving half of one link that is up: bytes in, events out, for either side.
//!
//! It begins with a [`Handshake`](crate::Handshake), and goes on over as many transports as it
//! takes: where one ends inside a frame, the next goes on there. After its first error it gives
//! nothing but that.
//!
//! Connections are not known here: whether an id is open, and whether its credit holds, is for
//! the owner of the [`Table`](crate::table::Table) to say.

pub use crate::config::{LinkConfig, Resume, Role};
use crate::conn::Conn;
use crate::control::{Control, Hello};
use crate::credit::{RecvWindow, SendCredit};
use crate::error::{Excerpt, LinkError, Place};
pub use crate::event::Event;
use crate::frame::{Decoder, Piece};
use crate::limits::{ACK_EVERY, CONTROL_LINE_MAX};

/// The highest version of the protocol that is spoken here.
pub const VERSION: u32 = 2;

/// The receiving half of a link.
#[derive(Clone, Debug)]
pub struct Link {
    broken: Option<Box<LinkError>>,
    decoder: Decoder,
    /// A control message that was cut by a frame's or the input's end.
    line: Vec<u8>,
    /// What the peer said of itself; nothing in version 1.
    peer: Option<Hello>,
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
    /// The stream behind a handshake, whose decoder may have begun on it.
    pub(crate) fn begin(
        config: LinkConfig,
        decoder: Decoder,
        peer: Option<Hello>,
        resume_timeout: u32,
    ) -> Self {
        Link {
            broken: None,
            decoder,
            line: Vec::new(),
            peer,
            unknown_verbs: 0,
            received: 0,
            acked: 0,
            news: false,
            resume_timeout,
            config,
        }
    }

    /// The next event out of `input`, which is advanced past it; `None` says that the input is
    /// used up. Nothing waits for a whole frame, only a control message for its newline.
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
        if let Some(error) = &self.broken {
            return Err(LinkError::clone(error));
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

    /// The version of the link: 1 or 2.
    pub fn version(&self) -> u32 {
        if self.peer.is_some() { VERSION } else { 1 }
    }

    /// What the peer said of itself, on a version 2 link.
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

    /// Would the peer understand an `error` message? Not in version 1.
    pub fn hears_errors(&self) -> bool {
        self.peer.is_some()
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
        self.broken = Some(Box::new(error.clone()));
        error
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
        if self.peer.is_none() {
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
        Ok(Some(match message {
            None => {
                self.unknown_verbs += 1;
                // No event tells of it, and it is to be acknowledged all the same.
                self.news = true;
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
}
