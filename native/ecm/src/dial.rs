//! Connects to ejabberd.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use crate::app::App;
use crate::backend::Backend;
use crate::reader::LinkEnd;
use crate::values::BackendAddress;

/// The kernel counts keepalive in whole seconds, see tcp(7).
const KEEPALIVE_MIN: Duration = Duration::from_secs(1);

/// Probes without an answer after which the kernel gives a link up.
const KEEPALIVE_PROBES: u32 = 3;

/// The receiving side of a link's stream.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;

/// The sending side of a link's stream.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// A stream to ejabberd of which nothing was said on yet.
pub struct Connected {
    /// What comes from ejabberd.
    pub input: Input,
    /// What goes to it.
    pub output: Output,
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

/// Connects to `backend`.
///
/// # Errors
/// Nobody answers there. It does not look at `connect_timeout`.
pub async fn connect(app: &App, backend: &Backend) -> Result<Connected, NotUp> {
    // For the kernel to find out that the machine at the other end is gone,
    // which a silent version 1 link has no other way to.
    let beat = app.config.heartbeat.get().max(KEEPALIVE_MIN);
    let keepalive = TcpKeepalive::new()
        .with_time(beat)
        .with_interval(beat)
        .with_retries(KEEPALIVE_PROBES);
    let connected: io::Result<(Input, Output)> = async {
        Ok(match backend.address() {
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
    match connected {
        Ok((input, output)) => Ok(Connected { input, output }),
        Err(error) => Err(NotUp::Connect {
            address: backend.address().to_string(),
            error,
        }),
    }
}
