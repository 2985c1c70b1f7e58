//! Brings one link up: connects and shakes hands.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use megaphone_proto::{LinkConfig, Role};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use crate::app::App;
use crate::ids::Ids;
use crate::link::{Link, Terms};
use crate::reader::{Input, LinkEnd, Reader};
use crate::values::BackendAddress;

/// The kernel counts keepalive in whole seconds, see tcp(7).
const KEEPALIVE_MIN: Duration = Duration::from_secs(1);

/// Probes without an answer after which the kernel gives a link up.
const KEEPALIVE_PROBES: u32 = 3;

const NO_ANSWER: &str = "the connection was not answered";
const NO_HELLO: &str =
    "ejabberd did not answer the hello (does it speak only version 1? then set protocol = 1)";

/// The sending side of a link's stream.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// A link that has come up.
pub struct Up {
    /// As everyone sees it.
    pub link: Arc<Link>,
    /// What comes over it.
    pub reader: Reader,
    /// Where it is written to.
    pub output: Output,
    /// What is logged once clients can come.
    pub sentence: String,
}

/// Why there is no link. Each is the end of the sentence
/// "link 1 cannot come up: ".
#[derive(Debug, thiserror::Error)]
pub enum NotUp {
    /// Nobody answers at the address.
    #[error("{address}: {error}")]
    Connect {
        /// The address.
        address: String,
        /// What the system said.
        error: io::Error,
    },
    /// Who answered is no ejabberd of ours, or went away.
    #[error("the handshake failed: {0}")]
    Handshake(#[from] LinkEnd),
    /// It took too long.
    #[error("no link after connect_timeout={0}, {1}")]
    Late(humantime::FormattedDuration, &'static str),
    /// A nonce or ids could not be made.
    #[error("the system has no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// Dials link `number` and shakes hands.
///
/// # Errors
/// No link came up within `connect_timeout`.
pub async fn dial(app: &App, number: usize) -> Result<Up, NotUp> {
    let allowed = app.config.backend.connect_timeout.get();
    let beat = app.config.heartbeat.get().max(KEEPALIVE_MIN);
    let keepalive = TcpKeepalive::new()
        .with_time(beat)
        .with_interval(beat)
        .with_retries(KEEPALIVE_PROBES);
    let mut connected = false;
    let dialled = timeout(allowed, async {
        let (input, output) = connect(&app.config.backend.address, keepalive).await?;
        connected = true;
        shake_hands(app, number, input, output).await
    });
    match dialled.await {
        Ok(dialled) => dialled,
        Err(_) => {
            let why = if connected { NO_HELLO } else { NO_ANSWER };
            Err(NotUp::Late(humantime::format_duration(allowed), why))
        }
    }
}

/// Connects. `keepalive` is for the kernel to find out that the machine at
/// the other end is gone, which a silent version 1 link has no other way to.
async fn connect(
    address: &BackendAddress,
    keepalive: TcpKeepalive,
) -> Result<(Input, Output), NotUp> {
    let connected: io::Result<(Input, Output)> = async {
        Ok(match address {
            BackendAddress::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
                SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
                let (input, output) = stream.into_split();
                (Box::new(input) as Input, Box::new(output) as Output)
            }
            BackendAddress::Unix(path) => {
                let (input, output) = UnixStream::connect(path).await?.into_split();
                (Box::new(input) as Input, Box::new(output) as Output)
            }
        })
    }
    .await;
    connected.map_err(|error| NotUp::Connect {
        address: address.to_string(),
        error,
    })
}

async fn shake_hands(
    app: &App,
    number: usize,
    input: Input,
    mut output: Output,
) -> Result<Up, NotUp> {
    let config = &app.config;
    let mut protocol = LinkConfig::new(Role::Edge, config.name.as_str(), nonce()?);
    protocol.version = config.protocol.as_u32();
    protocol.window = config.window.as_u32();
    protocol.max_content = config.max_frame.as_u32();
    let protocol = megaphone_proto::Link::new(protocol);
    if protocol.version() != Some(1) {
        let hello = protocol.hello().to_frame();
        output.write_all(&hello).await.map_err(LinkEnd::Write)?;
    }
    let mut reader = Reader::new(input, protocol, config.window.as_usize());
    let version = reader.handshake().await?;
    let terms = Terms {
        number,
        version,
        conn: reader.protocol().new_conn(),
        max_content: reader.protocol().max_content_to_send(),
        max_connections: app.places.all() as usize,
    };
    let address = &config.backend.address;
    let sentence = format!(
        "link {number} up to {address} version={version}{}",
        named(reader.protocol())
    );
    let link = Arc::new(Link::new(terms, Ids::new()?));
    Ok(Up {
        link,
        reader,
        output,
        sentence,
    })
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
fn named(protocol: &megaphone_proto::Link) -> String {
    match protocol.peer() {
        Some(hello) => format!(
            " peer={:?} link={:?}",
            hello.name,
            hello.link.as_deref().unwrap_or("")
        ),
        None => String::new(),
    }
}
