//! A link over one transport: read, written and asked for its pulse until it
//! ends, or until only the transport does.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use megaphone_proto::control::{CloseReason, Control, ErrorCode};
use tokio::io::AsyncWriteExt;
use tokio::task::JoinError;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::app::App;
use crate::dial::{Input, Output};
use crate::link::Link;
use crate::outbox::DATA_MAX;
use crate::parked::Parked;
use crate::pulse::beat;
use crate::reader::{LinkEnd, Reader};

/// How long the last message of a broken link may take, and how long the
/// other end's is waited for.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A link and all that is known of it, whatever transport carries it.
pub struct Session {
    /// As everyone sees it.
    pub link: Arc<Link>,
    /// Where the stream of what comes is at, also in the middle of a frame.
    pub protocol: megaphone_proto::Link,
    /// What to ask for it by, if it may be resumed.
    pub key: Option<Key>,
}

/// What ejabberd knows a link by. Not for the log: who has the token can
/// take the link over.
#[derive(Clone)]
pub struct Key {
    /// ejabberd's name for it.
    pub link: String,
    /// What shows that it is ours.
    pub token: String,
    /// How long both sides keep it.
    pub timeout: Duration,
}

/// What carries a link.
pub struct Transport {
    /// What comes from ejabberd.
    pub input: Input,
    /// What came already, behind the handshake.
    pub unread: Vec<u8>,
    /// What goes to ejabberd.
    pub output: Output,
    /// What is to be written before all else, because it went over a
    /// transport before this one and did not arrive.
    pub again: VecDeque<Bytes>,
}

/// What became of a link.
pub enum Outcome {
    /// It is over, and no client is on it any more.
    Over(LinkEnd),
    /// Its transport is gone, for this reason; itself it may go on.
    Dropped(Box<Parked>, LinkEnd),
}

type Read = (Option<LinkEnd>, megaphone_proto::Link);

/// What reads and what writes a transport, each until it is done.
struct Tasks {
    reading: Option<AbortOnDropHandle<Read>>,
    writing: Option<AbortOnDropHandle<io::Error>>,
}

/// Waits for a task; `None` where that was done before.
async fn done<T>(task: &mut Option<AbortOnDropHandle<T>>) -> Option<Result<T, JoinError>> {
    let done = task.as_mut()?.await;
    *task = None;
    Some(done)
}

/// Runs a link over `transport`. Where it is over, its connections are still
/// on it.
pub async fn run(app: &App, session: Session, transport: Transport) -> Outcome {
    let Session {
        link,
        protocol,
        key,
    } = session;
    let hears_errors = protocol.hears_errors();
    let Transport {
        input,
        unread,
        output,
        again,
    } = transport;
    let reader = Reader::new(input, &unread, protocol, app.config.window.as_usize());
    let take_away = CancellationToken::new();
    let reading = tokio::spawn(reader.run(Arc::clone(&link), take_away.clone()));
    let writing = tokio::spawn(write(output, again, Arc::clone(&link)));
    let mut tasks = Tasks {
        reading: Some(AbortOnDropHandle::new(reading)),
        writing: Some(AbortOnDropHandle::new(writing)),
    };
    let (mut end, mut protocol) = watch(app, &link, &mut tasks).await;
    if let LinkEnd::Write(_) = end
        && let Ok(Some(read)) = timeout(LAST_WORDS, done(&mut tasks.reading)).await
    {
        // ejabberd may have said why before it went.
        let (said, left) = left_by(read);
        protocol = left;
        if !said.is_drop() {
            end = said;
        }
    }
    if let Some(key) = key.filter(|_| end.is_drop() && link.may_resume()) {
        link.park();
        // Nothing is waited for that the transport has to do: it may be dead
        // without knowing it.
        if let Some(writing) = &tasks.writing {
            writing.abort();
        }
        done(&mut tasks.writing).await;
        take_away.cancel();
        if let Some(read) = done(&mut tasks.reading).await {
            protocol = left_by(read).1;
        }
        return match protocol {
            Some(protocol) => Outcome::Dropped(Box::new(Parked::new(link, protocol, key)), end),
            None => Outcome::Over(end),
        };
    }
    link.stop_accepting();
    match end {
        LinkEnd::Stopped => {
            if !link.is_leaving() {
                link.say_goaway(None);
            }
            link.close_some(usize::MAX, CloseReason::Shutdown);
            link.outbox().finish(None);
            // Bounded by who waits for the end of the program. The link is
            // read on meanwhile: ejabberd must not be stuck in a write.
            done(&mut tasks.writing).await;
        }
        LinkEnd::Drained if app.draining.is_cancelled() => {
            link.outbox().finish(None);
            // Bounded as above.
            done(&mut tasks.writing).await;
        }
        _ => {
            let last = last_words(&end).filter(|_| hears_errors);
            link.outbox().finish(last.as_ref());
            let _ = timeout(LAST_WORDS, done(&mut tasks.writing)).await;
        }
    }
    Outcome::Over(end)
}

/// Waits until the link or its transport ends. Also returns what the reader
/// left, where it was the reader that ended.
async fn watch(
    app: &App,
    link: &Link,
    tasks: &mut Tasks,
) -> (LinkEnd, Option<megaphone_proto::Link>) {
    let mut silence = std::pin::pin!(beat(link, app.config.heartbeat.get()));
    let mut leaving = false;
    let end = loop {
        tokio::select! {
            biased;
            Some(read) = done(&mut tasks.reading) => return left_by(read),
            Some(error) = done(&mut tasks.writing) => {
                break LinkEnd::Write(error.unwrap_or_else(io::Error::from));
            }
            () = app.stop.cancelled() => break LinkEnd::Stopped,
            () = link.drained() => break LinkEnd::Drained,
            () = &mut silence => break LinkEnd::Silent,
            () = app.draining.cancelled(), if !leaving => {
                leaving = true;
                link.say_goaway(Some(app.drain_seconds()));
            }
        }
    };
    (end, None)
}

/// How a reader ended. One that failed leaves nothing to go on with.
fn left_by(read: Result<Read, JoinError>) -> (LinkEnd, Option<megaphone_proto::Link>) {
    match read {
        Ok((end, protocol)) => (end.unwrap_or(LinkEnd::Closed), Some(protocol)),
        Err(failed) => (LinkEnd::Read(failed.into()), None),
    }
}

/// Writes what did not arrive before, and then what gathers in the outbox
/// until it is finished and the stream ended. Returns what ended it.
///
/// What it was writing when it is dropped is among what the link retains.
async fn write(mut output: Output, again: VecDeque<Bytes>, link: Arc<Link>) -> io::Error {
    match write_all(&mut output, again, &link).await {
        Ok(()) => io::Error::other("all is written"),
        Err(error) => error,
    }
}

async fn write_all(output: &mut Output, again: VecDeque<Bytes>, link: &Link) -> io::Result<()> {
    write_again(output, again).await?;
    while let Some(gathered) = link.outbox().take().await {
        link.retain(gathered.urgent.clone());
        link.retain(gathered.data.clone());
        let mut bytes = gathered.urgent.chain(gathered.data);
        output.write_all_buf(&mut bytes).await?;
        // TLS may hold some of it back.
        output.flush().await?;
    }
    output.shutdown().await
}

/// Writes what was written before: many small pieces, as a rule, and together
/// now.
async fn write_again(output: &mut Output, again: VecDeque<Bytes>) -> io::Result<()> {
    let mut part = Vec::new();
    for piece in again {
        if part.len() + piece.len() > DATA_MAX {
            output.write_all(&part).await?;
            part.clear();
        }
        part.extend_from_slice(&piece);
    }
    output.write_all(&part).await?;
    output.flush().await
}

/// Says why a transport is closed that carries no link, and closes it.
/// Whoever does not read it gets no explanation.
pub async fn say_last(mut output: Output, last: &Control) {
    let said = async {
        output.write_all(&last.to_frame()).await?;
        output.shutdown().await
    };
    let _: Result<io::Result<()>, _> = timeout(LAST_WORDS, said).await;
}

/// The last message on a link that ends for `end`, where there is one.
fn last_words(end: &LinkEnd) -> Option<Control> {
    match end {
        LinkEnd::Protocol(error) => Some(error.to_control()),
        LinkEnd::Silent => Some(Control::Error {
            code: ErrorCode::Timeout,
            text: end.to_string(),
        }),
        _ => None,
    }
}
