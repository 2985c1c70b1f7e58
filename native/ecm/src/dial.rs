//! Connects to ejabberd.

use std::io;
use std::time::Duration;

use megaphone_proto::auth::Secret;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use crate::app::App;
use crate::backend::Backend;
use crate::credentials::{Credentials, NoCredentials};
use crate::reader::LinkEnd;
use crate::tls::{self, Explained};
use crate::unix;
use crate::values::BackendAddress;

/// The kernel counts keepalive in whole seconds, see tcp(7).
const KEEPALIVE_MIN: Duration = Duration::from_secs(1);

/// Probes without an answer after which the kernel gives a link up.
const KEEPALIVE_PROBES: u32 = 3;

/// The receiving side of a link's stream.
pub type Input = Box<dyn AsyncRead + Send + Unpin>;

/// The sending side of a link's stream.
pub type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// A stream to ejabberd that nothing was said on yet.
pub struct Connected {
    /// What comes from ejabberd.
    pub input: Input,
    /// What goes to it. It must be flushed: TLS keeps bytes back until then.
    pub output: Output,
    /// What both ends must prove to know, where there is something.
    pub secret: Option<Secret>,
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
    /// The files that are needed for it.
    #[error("{0}")]
    Credentials(#[from] NoCredentials),
    /// They could not be read at all.
    #[error("no thread can be had to read files: {0}")]
    Files(#[from] tokio::task::JoinError),
    /// The peer and we do not agree on TLS.
    #[error("TLS with {address} failed: {error}")]
    Tls {
        /// The peer's address, as it is configured.
        address: String,
        /// Why.
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

/// Connects to `backend`, and speaks TLS where that is configured.
///
/// # Errors
/// Nobody answers there, or it is not who it should be. It does not look at
/// `connect_timeout`.
pub async fn connect(app: &App, backend: &Backend) -> Result<Connected, NotUp> {
    let Credentials { secret, tls } = read_credentials(backend.clone()).await?;
    let address = backend.address();
    let not_there = |error| NotUp::Connect {
        address: address.to_string(),
        error,
    };
    let (input, output) = match (address, tls) {
        // There is no TLS on these, see `Backend::check`.
        (BackendAddress::Unix(path), _) => boxed(unix::connect(path).await.map_err(not_there)?),
        (BackendAddress::Tcp { host, port }, None) => {
            let stream = connect_tcp(app, host, *port).await.map_err(not_there)?;
            boxed(stream.into_split())
        }
        (BackendAddress::Tcp { host, port }, Some(terms)) => {
            let stream = connect_tcp(app, host, *port).await.map_err(not_there)?;
            let peer = address.to_string();
            match tls::shake_hands(stream, &terms).await {
                Ok(stream) => {
                    let (input, output) = tokio::io::split(stream);
                    boxed((Explained { input, peer }, output))
                }
                Err(error) => {
                    let address = peer;
                    return Err(NotUp::Tls { address, error });
                }
            }
        }
    };
    Ok(Connected {
        input,
        output,
        secret,
    })
}

fn boxed<I, O>((input, output): (I, O)) -> (Input, Output)
where
    I: AsyncRead + Send + Unpin + 'static,
    O: AsyncWrite + Send + Unpin + 'static,
{
    (Box::new(input), Box::new(output))
}

async fn connect_tcp(app: &App, host: &str, port: u16) -> io::Result<TcpStream> {
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    // For the kernel to find out that the machine at the other end is gone,
    // which a silent version 1 link has no other way to.
    let beat = app.config.heartbeat.get().max(KEEPALIVE_MIN);
    let keepalive = TcpKeepalive::new()
        .with_time(beat)
        .with_interval(beat)
        .with_retries(KEEPALIVE_PROBES);
    SockRef::from(&stream).set_tcp_keepalive(&keepalive)?;
    Ok(stream)
}

/// Reads files, if there are any, which may take a while, where that holds
/// nobody up.
async fn read_credentials(backend: Backend) -> Result<Credentials, NotUp> {
    if backend.secret_file.is_none() && backend.tls.is_none() {
        return Ok(Credentials::default());
    }
    let read = tokio::task::spawn_blocking(move || Credentials::read(&backend));
    Ok(read.await?.map_err(|(_, why)| why)?)
}
