//! How a link begins: versions, credit, proofs, and whether an earlier link goes on.
//!
//! ```text
//!            node                                  edge
//!          ┌───────┐                            ┌───────┐
//!   v1 ◄───┤ Hello │ the edge's                 │ Hello │ ejabberd's, with its proof
//!          └───┬───┘                            └───┬───┘
//!          ┌───┴────┐                               │
//!          │ Answer │ Handshake::answer             │ Handshake::auth
//!          └───┬────┘                               │
//!  a secret?   ▼                                    ▼
//!          ┌───────┐                            ┌───────┐
//!          │ Auth  ├───────────────────────────►│  Up   │ the rest is the link's stream
//!          └───────┘                            └───────┘
//! ```
//!
//! Nothing but its messages is taken, each at most [`CONTROL_LINE_MAX`] bytes and alone in its
//! frame, and no more than one such message is ever kept: a peer that has proved nothing costs
//! nothing.

use crate::config::{LinkConfig, Role};
use crate::control::{Control, Hello};
use crate::error::{AuthProblem, Excerpt, LinkError};
use crate::frame::{ConnectionId, Decoder, Piece};
use crate::limits::{CONTROL_LINE_MAX, NONCE_MIN};
use crate::link::{Link, VERSION};

/// What the owner of a handshake must know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A node has the edge's hello: look at [`Handshake::peer`], then [`Handshake::answer`].
    Hello,
    /// The link is up. What is left of the input is its stream's.
    Up {
        /// 1 or 2.
        version: u32,
    },
}

/// Who a node says that the link is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its name, which logs show.
    pub link: String,
    /// Hex digits that only both its ends know, to resume it with.
    pub token: String,
    /// Where an earlier link goes on: bytes of its frames that the node has.
    pub resumed: Option<u64>,
}

#[derive(Clone, Debug)]
enum Phase {
    /// The peer's hello is due.
    Hello,
    /// A node owes the answer to it.
    Answer,
    /// The edge's proof is due.
    Auth,
    /// All is known, and the owner was not told yet.
    Ready(u32),
    Up,
    Broken(Box<LinkError>),
}

/// One handshake, of either side.
#[derive(Clone, Debug)]
pub struct Handshake {
    phase: Phase,
    config: LinkConfig,
    decoder: Decoder,
    /// The beginning of a message.
    line: Vec<u8>,
    peer: Option<Hello>,
    /// The first frame was on connection 0, so the peer understands control messages.
    control_seen: bool,
}

impl Handshake {
    /// A handshake of which nothing has come yet.
    pub fn new(config: LinkConfig) -> Self {
        let v1 = config.role == Role::Edge && config.version == 1;
        Handshake {
            phase: if v1 { Phase::Ready(1) } else { Phase::Hello },
            decoder: Decoder::new(config.max_content),
            line: Vec::new(),
            peer: None,
            control_seen: config.role == Role::Edge && !v1,
            config,
        }
    }

    /// What an edge writes first; nothing in version 1.
    pub fn hello(&self) -> Option<Control> {
        let LinkConfig { role, version, .. } = self.config;
        if role == Role::Node || version == 1 {
            return None;
        }
        let mut hello = self.own_hello();
        if let Some(resume) = &self.config.resume {
            hello.resume = Some(resume.link.clone());
            hello.token = Some(resume.token.clone());
            hello.received = Some(resume.received);
        }
        Some(Control::Hello(hello))
    }

    /// The next step out of `input`, which is advanced past it; `None` says that the input is
    /// used up. Call again after an answer, also with no new input.
    ///
    /// # Errors
    /// The link must be closed; tell the peer where [`Handshake::hears_errors`]. Every later call
    /// gives the same error.
    pub fn next(&mut self, input: &mut &[u8]) -> Result<Option<Step>, LinkError> {
        let step = self.step(input);
        if let Err(error) = &step {
            self.phase = Phase::Broken(Box::new(error.clone()));
        }
        step
    }

    /// For a node, after [`Step::Hello`]: the hello to be written.
    pub fn answer(&mut self, identity: Identity) -> Control {
        let mut hello = self.own_hello();
        hello.link = Some(identity.link);
        hello.token = (self.resume_timeout() > 0).then_some(identity.token);
        hello.resumed = identity.resumed;
        self.phase = Phase::Ready(VERSION);
        if let (Some(secret), Some(peer)) = (&self.config.secret, &self.peer) {
            hello.proof = Some(secret.server_proof(&peer.nonce, &self.config.nonce));
            self.phase = Phase::Auth;
        }
        Control::Hello(hello)
    }

    /// For an edge that is [`Step::Up`] and has a secret: what is to be written before all else.
    pub fn auth(&self) -> Option<Control> {
        let (secret, peer) = (self.config.secret.as_ref()?, self.peer.as_ref()?);
        Some(Control::Auth {
            proof: secret.client_proof(&peer.nonce, &self.config.nonce),
        })
    }

    /// What the peer said of itself, once it has.
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// For an edge that is up: the link that it asked for goes on, and ejabberd has so many bytes
    /// of its frames. `None`: the link is a fresh one.
    pub fn resumed(&self) -> Option<u64> {
        self.peer.as_ref()?.resumed
    }

    /// For how many seconds both sides keep this link when it drops; 0 where one keeps none.
    pub fn resume_timeout(&self) -> u32 {
        let peer = self.peer.as_ref().and_then(|peer| peer.resume_timeout);
        self.config.resume_timeout.min(peer.unwrap_or(0))
    }

    /// Would the peer understand an `error` message? Not in version 1, and not when what came
    /// was no frame at all.
    pub fn hears_errors(&self) -> bool {
        self.control_seen
    }

    /// The stream of the fresh link that this was the handshake of. It is for the owner to have
    /// seen [`Step::Up`].
    pub fn finish(self) -> Link {
        let resume_timeout = self.resume_timeout();
        Link::begin(self.config, self.decoder, self.peer, resume_timeout)
    }

    fn own_hello(&self) -> Hello {
        let config = &self.config;
        Hello {
            version: VERSION,
            name: config.name.clone(),
            nonce: config.nonce.clone(),
            window: config.window,
            max_frame: config.max_content,
            link: None,
            resume_timeout: Some(config.resume_timeout).filter(|seconds| *seconds > 0),
            token: None,
            resume: None,
            received: None,
            resumed: None,
            proof: None,
        }
    }

    fn step(&mut self, input: &mut &[u8]) -> Result<Option<Step>, LinkError> {
        loop {
            match &self.phase {
                Phase::Broken(error) => return Err(LinkError::clone(error)),
                Phase::Ready(version) => return Ok(Some(self.up(*version))),
                Phase::Answer | Phase::Up => return Ok(None),
                Phase::Hello | Phase::Auth => {}
            }
            let (before, decoder) = (*input, self.decoder.clone());
            let piece = self.decoder.next(input)?;
            let id = match piece {
                Some(Piece::Content { id, .. } | Piece::End { id }) => Some(id),
                None => self.decoder.current().map(|(id, _)| id),
            };
            if let Some(id) = id.filter(|id| !id.is_control()) {
                self.check_v1(id)?;
                // The frame is the stream's first.
                (*input, self.decoder) = (before, decoder);
                return Ok(Some(self.up(1)));
            }
            self.control_seen |= id.is_some();
            match piece {
                None => return Ok(None),
                Some(Piece::End { .. }) => return Err(LinkError::ControlEnd),
                Some(Piece::Content { bytes, .. }) => {
                    if let Some(step) = self.part(bytes)? {
                        return Ok(Some(step));
                    }
                }
            }
        }
    }

    fn up(&mut self, version: u32) -> Step {
        self.phase = Phase::Up;
        Step::Up { version }
    }

    /// May the first client's frame, on connection `id`, make this a version 1 link?
    fn check_v1(&self, id: ConnectionId) -> Result<(), LinkError> {
        let first = matches!(self.phase, Phase::Hello) && self.line.is_empty();
        if self.config.role == Role::Edge || !first || self.control_seen {
            Err(LinkError::BeforeHello { id })
        } else if !self.config.allow_v1 || self.config.secret.is_some() {
            Err(LinkError::V1Refused { id })
        } else {
            Ok(())
        }
    }

    /// A part of the message that is due.
    fn part(&mut self, bytes: &[u8]) -> Result<Option<Step>, LinkError> {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        // A line of the full length has its newline still to come.
        if part.len() > CONTROL_LINE_MAX - 1 - self.line.len() {
            let line = Excerpt::new(&[&self.line, part].concat());
            return Err(LinkError::LineTooLong { line });
        }
        self.line.extend_from_slice(part);
        let Some(end) = end else { return Ok(None) };
        let line = std::mem::take(&mut self.line);
        let step = self.message(&line)?;
        if end + 1 < bytes.len() || self.decoder.mid_frame() {
            let line = Excerpt::new(&line);
            return Err(LinkError::NotAlone { line });
        }
        Ok(step)
    }

    fn message(&mut self, line: &[u8]) -> Result<Option<Step>, LinkError> {
        let excerpt = || Excerpt::new(line);
        let message = Control::parse(line).map_err(|error| LinkError::Control {
            error,
            line: excerpt(),
        })?;
        match (&self.phase, message) {
            (Phase::Auth, Some(Control::Auth { proof })) => {
                self.check_client(&proof)?;
                self.phase = Phase::Ready(VERSION);
                Ok(None)
            }
            (Phase::Auth, _) => Err(auth(AuthProblem::NotAuth { line: excerpt() })),
            (_, Some(Control::Hello(hello))) => match self.config.role {
                Role::Node => self.edge_said(hello).map(Some),
                Role::Edge => self.node_said(hello).map(|()| None),
            },
            _ => Err(LinkError::NotHello { line: excerpt() }),
        }
    }

    /// An edge may offer more than we speak: it is answered with no more.
    fn edge_said(&mut self, hello: Hello) -> Result<Step, LinkError> {
        let version = hello.version;
        if version < VERSION {
            return Err(LinkError::Version { version });
        }
        self.check_nonce(&hello.nonce)?;
        self.peer = Some(hello);
        self.phase = Phase::Answer;
        Ok(Step::Hello)
    }

    fn node_said(&mut self, hello: Hello) -> Result<(), LinkError> {
        let version = hello.version;
        if version != VERSION {
            return Err(LinkError::Version { version });
        }
        let Some(link) = &hello.link else {
            return Err(LinkError::NoLinkName);
        };
        self.check_nonce(&hello.nonce)?;
        if let Some(secret) = &self.config.secret {
            let Some(proof) = &hello.proof else {
                return Err(auth(AuthProblem::NoProof));
            };
            if !secret.verify_server(&self.config.nonce, &hello.nonce, proof) {
                return Err(auth(AuthProblem::Wrong));
            }
        }
        let asked = self.config.resume.as_ref().map(|resume| &resume.link);
        if hello.resumed.is_some() && asked != Some(link) {
            return Err(LinkError::NotAsked);
        }
        self.peer = Some(hello);
        self.phase = Phase::Ready(VERSION);
        Ok(())
    }

    fn check_nonce(&self, nonce: &str) -> Result<(), LinkError> {
        let len = nonce.len();
        if self.config.secret.is_some() && len < NONCE_MIN {
            return Err(auth(AuthProblem::Nonce { len }));
        }
        Ok(())
    }

    fn check_client(&self, proof: &str) -> Result<(), LinkError> {
        let (own, peer) = (&self.config.nonce, self.peer.as_ref());
        let peer = peer.map_or("", |peer| peer.nonce.as_str());
        match &self.config.secret {
            Some(secret) if !secret.verify_client(own, peer, proof) => {
                Err(auth(AuthProblem::Wrong))
            }
            _ => Ok(()),
        }
    }
}

fn auth(problem: AuthProblem) -> LinkError {
    LinkError::Auth { problem }
}
