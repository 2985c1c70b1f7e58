//! Keeps one link up: dials, shakes hands, runs it, and begins again.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Buf;
use megaphone_proto::control::{CloseReason, Control};
use megaphone_proto::{LinkConfig, Role};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::{info, warn};

use crate::app::App;
use crate::backoff::Backoff;
use crate::ids::Ids;
use crate::link::{Link, Terms};
use crate::outbox::Gathered;
use crate::reader::{Input, LinkEnd, Reader, last_words};
use crate::values::BackendAddress;

/// A link that stood so long had nothing wrong with it: the next pause is
/// the shortest again.
const STOOD: Duration = Duration::from_secs(10);

/// How long the last message of a broken link may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Heartbeat intervals without a byte after which a link is dead.
const MISSES_MAX: u32 = 3;

/// The sending side of a link's stream.
type Output = Box<dyn AsyncWrite + Send + Unpin>;

/// Why there is no link. Each is the end of the sentence
/// "link 1 cannot come up: ".
#[derive(Debug, thiserror::Error)]
enum NotUp {
    #[error("{address}: {error}")]
    Connect { address: String, error: io::Error },
    #[error("the handshake failed: {0}")]
    Handshake(#[from] LinkEnd),
    #[error("no link after connect_timeout={0}, {1}")]
    Late(humantime::FormattedDuration, &'static str),
    #[error("the system has no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// A link that has come up.
struct Up {
    link: Arc<Link>,
    reader: Reader,
    output: Output,
    /// What is logged once clients can come.
    sentence: String,
}

/// Keeps link `number` up until the program ends.
pub async fn keep(app: Arc<App>, number: usize) {
    let backend = &app.config.backend;
    let mut backoff = Backoff::new(backend.reconnect_min.get(), backend.reconnect_max.get());
    loop {
        let dialled = tokio::select! {
            biased;
            () = app.stop.cancelled() => return,
            dialled = dial(&app, number) => dialled,
        };
        let mut away = Duration::ZERO;
        let mut sentence = match dialled {
            Ok(up) => {
                let since = Instant::now();
                let link = Arc::clone(&up.link);
                let end = run(&app, up).await;
                if let LinkEnd::Stopped = end {
                    info!("link {number} closed {}", link.summary());
                    return;
                }
                if since.elapsed() >= STOOD {
                    backoff.reset();
                }
                away = link.retry_after();
                format!("link {number} ended: {end} {}", link.summary())
            }
            Err(error) => format!("link {number} cannot come up: {error}"),
        };
        let pause = backoff.pause(getrandom::u64().unwrap_or(0)).max(away);
        let shown = Duration::from_millis(u64::try_from(pause.as_millis()).unwrap_or(u64::MAX));
        sentence.push_str(&format!(
            "; next try in {}",
            humantime::format_duration(shown)
        ));
        warn!("{sentence}");
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Dials and shakes hands.
async fn dial(app: &App, number: usize) -> Result<Up, NotUp> {
    let allowed = app.config.backend.connect_timeout.get();
    let mut connected = false;
    let dialled = timeout(allowed, async {
        let (input, output) = connect(&app.config.backend.address).await?;
        connected = true;
        shake_hands(app, number, input, output).await
    });
    match dialled.await {
        Ok(dialled) => dialled,
        Err(_) => {
            let where_ = match connected {
                true => {
                    "ejabberd did not answer the hello (does it speak only version 1? then set protocol = 1)"
                }
                false => "the connection was not answered",
            };
            Err(NotUp::Late(humantime::format_duration(allowed), where_))
        }
    }
}

async fn connect(address: &BackendAddress) -> Result<(Input, Output), NotUp> {
    let connected: io::Result<(Input, Output)> = async {
        Ok(match address {
            BackendAddress::Tcp { host, port } => {
                let stream = TcpStream::connect((host.as_str(), *port)).await?;
                stream.set_nodelay(true)?;
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

/// Runs a link until it ends; then no client is on it any more.
async fn run(app: &App, up: Up) -> LinkEnd {
    let Up {
        link,
        mut reader,
        output,
        sentence,
    } = up;
    let hears_errors = reader.protocol().hears_errors();
    let read_link = Arc::clone(&link);
    let mut reader =
        AbortOnDropHandle::new(tokio::spawn(async move { reader.run(&read_link).await }));
    let mut writer = AbortOnDropHandle::new(tokio::spawn(write(output, Arc::clone(&link))));
    app.links.add(Arc::clone(&link));
    info!("{sentence}");
    let end = tokio::select! {
        biased;
        end = &mut reader => end.unwrap_or_else(|error| LinkEnd::Read(error.into())),
        done = &mut writer => LinkEnd::Write(done.unwrap_or_else(|error| Err(error.into())).err().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())),
        () = app.stop.cancelled() => LinkEnd::Stopped,
        () = link.drained() => LinkEnd::Drained,
        () = beat(&link, app.config.heartbeat.get()) => LinkEnd::Silent,
    };
    app.links.remove(&link);
    match end {
        LinkEnd::Stopped => {
            if !link.is_v1() {
                link.outbox().urgent(&Control::Goaway {
                    reason: CloseReason::Shutdown,
                    retry_after: None,
                });
            }
            link.close_all();
            link.outbox().finish(None);
            // Bounded by who waits for the end of the program. The link is
            // read on: ejabberd must not be stuck in a write of its own.
            let _ = writer.await;
        }
        LinkEnd::Write(_) | LinkEnd::Read(_) => link.lose(),
        _ => {
            link.lose();
            link.outbox()
                .finish(last_words(&end, hears_errors).as_ref());
            let _ = timeout(LAST_WORDS, writer).await;
        }
    }
    end
}

/// Writes what gathers in the outbox until it is finished.
async fn write(mut output: Output, link: Arc<Link>) -> io::Result<()> {
    let mut gathered = Gathered::default();
    while link.outbox().take(&mut gathered).await {
        let mut bytes = gathered.urgent.as_slice().chain(gathered.data.as_slice());
        output.write_all_buf(&mut bytes).await?;
        gathered.clear();
    }
    output.shutdown().await
}

/// Asks in each interval whether the other end lives. Returns when it does
/// not. Version 1 has no way to ask.
async fn beat(link: &Link, every: Duration) {
    if link.is_v1() {
        return std::future::pending().await;
    }
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let (mut seen, mut misses, mut word) = (link.received(), 0, 0_u64);
    loop {
        ticks.tick().await;
        let received = link.received();
        misses = if received == seen { misses + 1 } else { 0 };
        if misses >= MISSES_MAX {
            return;
        }
        seen = received;
        word += 1;
        link.outbox().urgent(&Control::Ping {
            word: word.to_string(),
        });
    }
}
