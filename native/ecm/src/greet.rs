//! Brings one link up, or back: has ejabberd dialled and shakes hands.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use megaphone_proto::control::Control;
use megaphone_proto::handshake::{Handshake, Step};
use megaphone_proto::{LinkConfig, Role};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use crate::app::App;
use crate::dial::{Connected, NotUp, Output, connect};
use crate::ids::Ids;
use crate::link::{Link, Terms};
use crate::parked::Parked;
use crate::reader::LinkEnd;
use crate::session::{Key, Session, Transport, say_last};

const NO_ANSWER: &str = "the connection was not answered";
const NO_HELLO: &str =
    "ejabberd did not answer the hello (does it speak only version 1? then set protocol = 1)";

/// Bytes read at a time until the link is up: ejabberd has little to say
/// before.
const READ_SIZE: usize = 4096;

/// A transport on which hands were shaken.
pub struct Greeted {
    /// What carries the link.
    pub transport: Transport,
    /// What both sides said.
    pub handshake: Handshake,
    version: u32,
}

/// Dials link `number` and shakes hands, asking for the link that is
/// `parked` if there is one.
///
/// # Errors
/// No link came up within `connect_timeout`.
pub async fn dial(app: &App, number: usize, parked: Option<&Parked>) -> Result<Greeted, NotUp> {
    let backend = app.config.backend_of(number);
    let allowed = backend.connect_timeout.get();
    let mut connected = false;
    let dialled = timeout(allowed, async {
        let stream = connect(app, backend).await?;
        connected = true;
        greet(app, stream, parked).await
    });
    match dialled.await {
        Ok(dialled) => dialled,
        Err(_) => {
            let why = if connected { NO_HELLO } else { NO_ANSWER };
            Err(NotUp::Late(humantime::format_duration(allowed), why))
        }
    }
}

async fn greet(app: &App, stream: Connected, parked: Option<&Parked>) -> Result<Greeted, NotUp> {
    let Connected {
        mut input,
        mut output,
        secret,
    } = stream;
    let config = &app.config;
    let mut own = LinkConfig::new(Role::Edge, config.name.as_str(), nonce()?);
    own.version = config.protocol.as_u32();
    own.window = config.window.as_u32();
    own.max_content = config.max_frame.as_u32();
    own.resume_timeout = config.resume_timeout.as_u32();
    own.secret = secret;
    own.resume = parked.map(Parked::asked_for);
    let mut handshake = Handshake::new(own);
    if let Some(hello) = handshake.hello() {
        say(&mut output, &hello).await?;
    }
    let (mut buffer, mut unread) = (vec![0; READ_SIZE], 0..0);
    let version = loop {
        let mut rest = &buffer[unread.clone()];
        let step = handshake.next(&mut rest);
        unread.start = unread.end - rest.len();
        match step {
            Ok(Some(Step::Up { version })) => break version,
            // Only a node is told of a hello.
            Ok(Some(Step::Hello)) => {}
            Ok(None) => match input.read(&mut buffer).await.map_err(LinkEnd::Read)? {
                0 => return Err(LinkEnd::Closed.into()),
                bytes => unread = 0..bytes,
            },
            Err(error) => {
                if handshake.hears_errors() {
                    say_last(output, &error.to_control()).await;
                }
                return Err(LinkEnd::Protocol(error).into());
            }
        }
    };
    if let Some(auth) = handshake.auth() {
        say(&mut output, &auth).await?;
    }
    let transport = Transport {
        input,
        unread: buffer[unread].to_vec(),
        output,
        again: VecDeque::new(),
    };
    Ok(Greeted {
        transport,
        handshake,
        version,
    })
}

async fn say(output: &mut Output, message: &Control) -> Result<(), LinkEnd> {
    let frame = message.to_frame();
    output.write_all(&frame).await.map_err(LinkEnd::Write)?;
    output.flush().await.map_err(LinkEnd::Write)
}

impl Greeted {
    /// The fresh link `number` that this is the beginning of, what carries
    /// it, and what is logged once clients can come.
    ///
    /// # Errors
    /// There are no random numbers for its ids.
    pub fn begin(
        self,
        app: &App,
        number: usize,
    ) -> Result<(Session, Transport, String), getrandom::Error> {
        let Self {
            transport,
            handshake,
            version,
        } = self;
        let address = app.config.backend_of(number).address();
        let sentence = format!(
            "link {number} up to {address} version={version}{}",
            named(&handshake)
        );
        let key = key(&handshake);
        let protocol = handshake.finish();
        let resume_buffer = key.as_ref().map(|_| app.config.resume_buffer.as_usize());
        let terms = Terms {
            number,
            version,
            conn: protocol.new_conn(),
            max_content: protocol.max_content_to_send(),
            max_connections: app.places.all() as usize,
            resume_buffer: resume_buffer.unwrap_or(0),
            budget: Arc::clone(&app.budget),
        };
        let session = Session {
            link: Arc::new(Link::new(terms, Ids::new()?)),
            protocol,
            key,
        };
        Ok((session, transport, sentence))
    }
}

/// What to ask for the link by, if both sides keep it when it drops.
fn key(handshake: &Handshake) -> Option<Key> {
    let hello = handshake.peer()?;
    let timeout = Duration::from_secs(handshake.resume_timeout().into());
    let key = Key {
        link: hello.link.clone()?,
        token: hello.token.clone()?,
        timeout,
    };
    (!timeout.is_zero()).then_some(key)
}

/// 128 random bits in hex.
fn nonce() -> Result<String, getrandom::Error> {
    Ok(format!(
        "{:016x}{:016x}",
        getrandom::u64()?,
        getrandom::u64()?
    ))
}

/// What ejabberd calls itself and the link, for the log.
fn named(handshake: &Handshake) -> String {
    match handshake.peer() {
        Some(hello) => format!(
            " peer={:?} link={:?}",
            hello.name,
            hello.link.as_deref().unwrap_or("")
        ),
        None => String::new(),
    }
}
